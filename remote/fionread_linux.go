package remote

import "golang.org/x/sys/unix"

const fionread = unix.TIOCINQ // the number of FIONREAD on Linux
