package rspawn

import (
	"net"
	"os"
	"path/filepath"
	"testing"

	"nightmare.mail/mxf/integration/must"
	"nightmare.mail/mxf/remote/rspawn/dialect"
	"nightmare.mail/mxf/remote/rspawn/wire"
)

// What a worker said before its end is read, though a delivery could not be handed to it any more.
func TestSaidBeforeAFailedWrite(t *testing.T) {
	conn, socket, err := wire.Pair()
	must.OK(t, err)
	other := must.Get(net.FileConn(socket))(t)
	socket.Close()
	worker := must.Get(wire.NewWorker(other.(*net.UnixConn)))(t)
	must.OK(t, worker.Send(wire.LastByte{IDs: []uint64{4}}, wire.Answer{ID: 3, Letter: 'K', Text: "accepted\n"}), worker.Close())

	p := &workerProcess{end: wire.NewParent(conn), children: newChildren()}
	p.changed.L = &p.mu
	defer p.end.Close()
	path := filepath.Join(t.TempDir(), "1")
	must.OK(t, os.WriteFile(path, nil, 0o600))
	message := must.Get(os.Open(path))(t)
	defer message.Close()
	p.deliver(&delivery{id: 5, command: &dialect.Command{}, message: message})
	p.write()

	messages, err := p.end.Read()
	if len(messages) != 2 || messages[1] != (wire.Answer{ID: 3, Letter: 'K', Text: "accepted\n"}) {
		t.Errorf("read %v, %v", messages, err)
	}
}
