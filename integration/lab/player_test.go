package lab

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"nightmare.mail/mxf/integration/must"
)

// beRspawn, in the environment, makes the test binary a qmail-rspawn: its value is the
// number of bytes.
const beRspawn = "LAB_BE_RSPAWN"

func TestMain(m *testing.M) {
	if n := os.Getenv(beRspawn); n != "" {
		os.Exit(fakeRspawn(int(n[0] - '0')))
	}
	os.Exit(m.Run())
}

// fakeRspawn answers as the sender wants: the answer itself, "twice" for two, "half", "none", "loud"
// for a word on descriptor 2. Its limit is 3. At the end it exits with the status that the last
// recipient begins with.
func fakeRspawn(bytes int) (status int) {
	number := make([]byte, bytes)
	number[0] = 3
	os.Stdout.Write(number)
	in := bufio.NewReader(os.Stdin)
	for {
		if _, err := io.ReadFull(in, number); err != nil {
			return status
		}
		var words [3]string
		for i := range words {
			words[i], _ = in.ReadString(0)
			words[i] = strings.TrimSuffix(words[i], "\x00")
		}
		fmt.Sscan(words[2], &status)
		answer := string(number) + "K" + strings.Join(words[:], ",") + "\x00"
		switch words[1] {
		case "twice":
			answer += answer
		case "half":
			answer = answer[:len(answer)-1]
		case "none":
			answer = ""
		case "loud":
			os.Stderr.WriteString("words")
		}
		os.Stdout.WriteString(answer)
	}
}

// play starts the fake.
func play(t *testing.T, bytes int) (*Player, context.Context) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return must.Get(Play(Part{
		Program: must.Get(os.Executable())(t), Bytes: bytes, Overhear: true,
		Environ: []string{fmt.Sprintf("%s=%d", beRspawn, bytes), "GOCOVERDIR=" + t.TempDir()},
	}))(t), ctx
}

func TestPlayerDelivers(t *testing.T) {
	for bytes := 1; bytes <= 2; bytes++ {
		p, ctx := play(t, bytes)
		if limit := must.Get(p.Limit(ctx))(t); limit != 3 {
			t.Errorf("the limit is %d", limit)
		}
		jobs := []Job{{"1/1", "s@a.example", []string{"a", "b", "c", "d", "e"}}, {"2/2", "", []string{"f"}}}
		var got []string
		must.OK(t, p.Jobs(ctx, jobs, func(job *Job, recipient string, a Answer) {
			got = append(got, a.Text)
			if want := job.Messid + "," + job.Sender + "," + recipient; a.Letter != 'K' || a.Text != want {
				t.Errorf("got %v, want %s", a, want)
			}
		}))
		if len(got) != 6 || p.Answers() != 6 {
			t.Errorf("got %q, %d", got, p.Answers())
		}
		must.OK(t, p.Close(patience))
	}
}

func TestPlayerSeesWhatIsWrong(t *testing.T) {
	for _, test := range []struct{ sender, recipient, want string }{
		{"twice", "a", "an answer to no command: 0 K"},
		{"half", "a", "half an answer: number 0"},
		{"none", "a", "1 commands have no answer"},
		{"loud", "a", `on descriptor 2 it said "words"`},
		{"", "7", "ended with status 7"},
	} {
		p, ctx := play(t, 1)
		must.Get(p.Begin(ctx, "1/1", test.sender, test.recipient))(t)
		if err := p.Close(patience); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%q, %q: %v", test.sender, test.recipient, err)
		}
	}
}

func TestPlayerTakesStrays(t *testing.T) {
	p, ctx := play(t, 2)
	must.OK(t, p.Write(p.Command(0xbeef, "1/1", "", "x")))
	if a := must.Get(p.Stray(ctx))(t); a != (Answer{0xbeef, 'K', "1/1,,x"}) {
		t.Errorf("got %v", a)
	}
	must.OK(t, p.Close(patience))
}

func TestPlayerWaitsForNumbers(t *testing.T) {
	p, ctx := play(t, 1)
	for range 3 {
		must.Get(p.Begin(ctx, "1/1", "none", ""))(t)
	}
	soon, cancel := context.WithTimeout(ctx, 10*time.Millisecond)
	defer cancel()
	if c, err := p.Begin(soon, "1/1", "", ""); err == nil {
		t.Errorf("number %d is given out twice", c.Number())
	}
	must.OK(t, p.Signal(syscall.SIGTERM))
	if status := must.Get(p.Wait(ctx))(t); status != -1 {
		t.Errorf("status %d", status)
	}
	must.OK(t, p.Verdict())
}

func TestPlayerShell(t *testing.T) {
	p := must.Get(Play(Part{Program: "/bin/cat", Arguments: []string{"/dev/stdin"}, Environ: os.Environ(), Shell: `printf '\002'; exit 3`}))(t)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if limit, status := must.Get(p.Limit(ctx))(t), must.Get(p.Wait(ctx))(t); limit != 2 || status != 3 {
		t.Errorf("limit %d, status %d", limit, status)
	}
	must.OK(t, p.Verdict())
}
