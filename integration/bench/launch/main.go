// Launch runs programs for the bench and measures them. It reads a runs.Job from
// standard input and prints a []runs.Result.
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"
	"time"

	"nightmare.mail/mxf/integration/bench/runs"
)

// maxOutput is how much of a program's output is kept, bytes.
const maxOutput = 1000

func main() {
	if err := launch(); err != nil {
		fmt.Fprintln(os.Stderr, "launch:", err)
		os.Exit(1)
	}
}

func launch() error {
	var job runs.Job
	if err := json.NewDecoder(os.Stdin).Decode(&job); err != nil {
		return err
	}
	if err := bind(job.Bind); err != nil {
		return err
	}
	results := make([]runs.Result, len(job.Runs))
	errs := make([]error, len(job.Runs))
	next := make(chan int)
	var working sync.WaitGroup
	for range max(job.Parallel, 1) {
		working.Go(func() {
			for i := range next {
				results[i], errs[i] = run(&job, i)
			}
		})
	}
	for i := range job.Runs {
		next <- i
	}
	close(next)
	working.Wait()
	for i, err := range errs {
		if err != nil {
			return fmt.Errorf("%q: %w", job.Runs[i], err)
		}
	}
	return json.NewEncoder(os.Stdout).Encode(results)
}

// run runs the program that has number i in the job.
func run(job *runs.Job, i int) (result runs.Result, err error) {
	argv, environ := job.Runs[i], job.Environ
	if job.Environs != nil {
		environ = job.Environs[i]
	}
	in, err := os.Open(job.Stdin)
	if err != nil {
		return result, err
	}
	defer in.Close()
	out, w, err := os.Pipe()
	if err != nil {
		return result, err
	}
	defer out.Close()
	begin := time.Now()
	p, err := os.StartProcess(argv[0], argv, &os.ProcAttr{Env: environ, Files: []*os.File{in, w, w}})
	w.Close()
	if err != nil {
		return result, err
	}
	said, err := io.ReadAll(io.LimitReader(out, maxOutput))
	if err != nil {
		return result, err
	}
	state, err := p.Wait()
	if err != nil {
		return result, err
	}
	result.Wall = time.Since(begin)
	result.CPU = state.UserTime() + state.SystemTime()
	if usage, ok := state.SysUsage().(*syscall.Rusage); ok {
		result.Peak = int64(usage.Maxrss) << 10
	}
	result.Exit, result.Output = state.ExitCode(), string(said)
	return result, nil
}
