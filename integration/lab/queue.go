package lab

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"sync"
)

// split is qmail's conf-split: among how many folders the queue divides its messages.
const split = 23

// Messid returns what the commands call message n: its path below queue/mess.
func Messid(n int) string { return strconv.Itoa(n%split) + "/" + strconv.Itoa(n) }

// Queue puts message n into the queue, where qmail-queue would, and returns its messid.
func (h *Home) Queue(n int, data []byte) (messid string, err error) {
	messid = Messid(n)
	path := h.Path("queue/mess/" + messid)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return "", err
	}
	return messid, os.WriteFile(path, data, 0o644)
}

// Unqueue takes message n out of the queue.
func (h *Home) Unqueue(n int) error { return os.Remove(h.Path("queue/mess/" + Messid(n))) }

// A Job is a message with those of its recipients that are not done.
type Job struct {
	Messid     string
	Sender     string
	Recipients []string
}

// Jobs plays a queue as qmail-send does: the recipients of the first job in order, then those
// of the next, in as many slots as there are. Told is called for each answer, by one goroutine at a
// time. The error joins those of commands that got none.
func (p *Player) Jobs(ctx context.Context, jobs []Job, told func(job *Job, recipient string, a Answer)) error {
	var mu sync.Mutex
	var errs []error
	var waiting sync.WaitGroup
	for i := range jobs {
		job := &jobs[i]
		for _, recipient := range job.Recipients {
			c, err := p.Begin(ctx, job.Messid, job.Sender, recipient)
			if err != nil {
				waiting.Wait()
				return errors.Join(append(errs, err)...)
			}
			waiting.Go(func() {
				a, err := c.Answer(ctx)
				mu.Lock()
				defer mu.Unlock()
				if err != nil {
					errs = append(errs, err)
					return
				}
				told(job, recipient, a)
			})
		}
	}
	waiting.Wait()
	return errors.Join(errs...)
}

// Deferrals plays jobs, and again those recipients whose answer was Z, in at most so many further
// rounds, as qmail-send does after a while. It returns what is left then.
func (p *Player) Deferrals(ctx context.Context, jobs []Job, rounds int, told func(job *Job, recipient string, a Answer)) ([]Job, error) {
	for round := 0; ; round++ {
		again := make(map[*Job][]string)
		err := p.Jobs(ctx, jobs, func(job *Job, recipient string, a Answer) {
			told(job, recipient, a)
			if a.Letter == 'Z' {
				again[job] = append(again[job], recipient)
			}
		})
		var left []Job
		for i := range jobs {
			if list := again[&jobs[i]]; len(list) > 0 {
				left = append(left, Job{jobs[i].Messid, jobs[i].Sender, list})
			}
		}
		if err != nil || len(left) == 0 || round == rounds {
			return left, err
		}
		jobs = left
	}
}
