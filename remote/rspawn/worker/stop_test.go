package worker

import (
	"context"
	"testing"

	"nightmare.mail/mxf/remote/rspawn/wire"
)

// underway is a call in a worker, for two deliveries that have sent MAIL.
func underway(p Parent) (c *call, ctx context.Context) {
	w := &Worker{Config: Config{Parent: p}}
	ctx, cancel := context.WithCancelCause(context.Background())
	c = &call{worker: w, cancel: cancel}
	for id := range uint64(2) {
		c.taken = append(c.taken, &member{Delivery: &wire.Delivery{ID: id}, worker: w})
	}
	return c, ctx
}

// heard is a Parent that notes of whom it heard that the last byte is begun.
type heard struct {
	Parent
	begun []uint64
}

func (h *heard) LastByte(ids []uint64) { h.begun = append(h.begun, ids...) }

// Either the last byte is begun, and the call goes on, or the call is cut, and then no byte follows:
// whatever comes first.
func TestCall_cut(t *testing.T) {
	h := new(heard)
	c, ctx := underway(h)
	c.LastByte([]int{0})
	c.stop(true)
	if ctx.Err() != nil || len(h.begun) != 1 {
		t.Errorf("begun, then cut: %v, %+v", ctx.Err(), h)
	}
	// Nobody waits for an answer to the first any more.
	c.taken[0].closed = true
	if c.stop(true); ctx.Err() == nil {
		t.Error("it goes on for one who was answered")
	}

	h = new(heard)
	c, ctx = underway(h)
	c.stop(true)
	c.LastByte([]int{0})
	if ctx.Err() == nil || len(h.begun) != 0 || c.taken[0].begun {
		t.Errorf("cut, then begun: %v, %+v", ctx.Err(), h)
	}
}
