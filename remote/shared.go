package remote

import (
	"nightmare.mail/mxf/control/stamp"
	"nightmare.mail/mxf/remote/line"
	"nightmare.mail/mxf/remote/transport"
	"nightmare.mail/mxf/smtpc"
)

// Shared is what all deliveries of a process have in common, whatever the control files say. It is nil
// in a process with one delivery.
type Shared struct {
	Line    *line.Line
	Counts  *transport.Counts
	Scripts stamp.Memory[bool] // see transport.Carrier
	Buffers smtpc.Buffers
}
