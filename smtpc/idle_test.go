package smtpc_test

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"testing"

	"nightmare.mail/mxf/integration/must"
	"nightmare.mail/mxf/smtpc"
	"nightmare.mail/mxf/smtpc/smtptest"
	"nightmare.mail/mxf/tlsc"
)

const (
	// idleSessions are kept at a time when their memory is measured, as for the figure of the
	// page on mxf-rspawn.
	idleSessions = 250
	// idleMemory bounds what one of them may cost in bytes, for the page allows 50 kB for
	// everything that belongs to a kept connection.
	idleMemory = 40 << 10
	// serverAlone is the variable by which the test binary is a server and nothing else.
	serverAlone = "SMTPTEST_SERVER_ALONE"
)

// TestServerAlone is the server of TestWatch_memory, which counts the client's memory alone.
func TestServerAlone(t *testing.T) {
	if os.Getenv(serverAlone) == "" {
		t.Skip("it is run by TestWatch_memory")
	}
	server := &smtptest.Server{TLS: serverTLS(), Extensions: []string{"PIPELINING"}}
	fmt.Println(smtptest.Listen(t, server.Serve))
	_, _ = bufio.NewReader(os.Stdin).ReadByte() // until the other end goes
	os.Exit(0)
}

// alone starts a server in a process of its own and returns its address.
func alone(t *testing.T) string {
	t.Helper()
	program := exec.Command(must.Get(os.Executable())(t), "-test.run=^TestServerAlone$")
	program.Env = append(os.Environ(), serverAlone+"=1")
	stdin, stdout := must.Get(program.StdinPipe())(t), must.Get(program.StdoutPipe())(t)
	must.OK(t, program.Start())
	t.Cleanup(func() { stdin.Close(); _ = program.Wait() })
	line := must.Get(bufio.NewReader(stdout).ReadString('\n'))(t)
	return line[:len(line)-1]
}

// inUse is the memory of heap and stacks, in bytes.
func inUse() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc + m.StackInuse
}

// A session in TLS that waits for its next mail keeps little.
func TestWatch_memory(t *testing.T) {
	address := alone(t)
	client := &tlsc.Client{}
	dial := func() *smtpc.Session {
		conn := smtptest.Dial(t, address)
		options := &smtpc.Options{HeloHost: "helo.example.org", TLS: smtpc.Required}
		options.StartTLS = func(ctx context.Context) (net.Conn, error) {
			return client.Handshake(ctx, conn, &tlsc.Demand{ServerName: peerName})
		}
		s := must.Get(smtpc.Open(t.Context(), conn, options))(t)
		must.OK(t, s.Send(t.Context(), mailTo("r@example.org")).Err)
		return s
	}
	first := dial() // what is made once
	before := inUse()
	sessions := make([]*smtpc.Session, idleSessions)
	var running sync.WaitGroup
	for i := range sessions {
		running.Go(func() {
			sessions[i] = dial()
			sessions[i].Watch(func() { t.Error("lost") })
		})
	}
	running.Wait()
	each := int64(inUse()-before) / idleSessions
	t.Logf("%d bytes for each session", each)
	if each > idleMemory {
		t.Errorf("%d bytes for each session, over %d", each, idleMemory)
	}
	for _, s := range append(sessions, first) {
		if s != first && !s.Wake() {
			t.Error("not usable")
		}
		must.Check(t, s.Send(t.Context(), mailTo("r@example.org")).Err)
		s.Quit()
	}
}
