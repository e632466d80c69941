package peers

import (
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"nightmare.mail/mxf/integration/must"
)

// postfixQueues are the folders of a Postfix queue, and who may use them.
var postfixQueues = map[string]os.FileMode{
	"active": 0o700, "bounce": 0o700, "corrupt": 0o700, "defer": 0o700, "deferred": 0o700,
	"flush": 0o700, "hold": 0o700, "incoming": 0o700, "private": 0o700, "saved": 0o700,
	"trace": 0o700, "public": 0o755, "maildrop": 0o730,
}

// postfixServices is master.cf without what a server that only takes mail and
// stores it has no use for.
const postfixServices = `
127.0.0.1:%s inet n - n - - smtpd
cleanup   unix  n - n - 0 cleanup
qmgr      unix  n - n 300 1 qmgr
tlsmgr    unix  - - n 1000? 1 tlsmgr
rewrite   unix  - - n - - trivial-rewrite
bounce    unix  - - n - 0 bounce
defer     unix  - - n - 0 bounce
trace     unix  - - n - 0 bounce
flush     unix  n - n 1000? 0 flush
proxymap  unix  - - n - - proxymap
error     unix  - - n - - error
retry     unix  - - n - - error
discard   unix  - - n - - discard
virtual   unix  - n n - - virtual
anvil     unix  - - n - 1 anvil
postlog   unix-dgram n - n - 1 postlogd
`

// Postfix starts a Postfix that stores each recipient's copy in a maildir.
func Postfix(t testing.TB, o Options) *Server {
	t.Helper()
	needRoot(t, "postfix")
	postconf := find(t, "postconf")
	owner, err := user.Lookup("postfix")
	if err != nil {
		Missing(t, "postfix", "postfix without its user: %v", err)
	}
	uid, gid := number(t, owner.Uid), number(t, owner.Gid)

	dir := folder(t)
	etc := filepath.Join(dir, "etc")
	for name, mode := range postfixQueues {
		own(t, filepath.Join(dir, "queue", name), mode, uid, gid)
	}
	for _, name := range []string{"data", "mail"} {
		own(t, filepath.Join(dir, name), 0o755, uid, gid)
	}
	own(t, filepath.Join(dir, "queue", "pid"), 0o755, 0, 0)

	// postconf(1) reads main.cf before it says what is compiled in.
	write(t, filepath.Join(etc, "main.cf"), "")
	daemons, err := exec.Command(postconf, "-c", etc, "-d", "-h", "daemon_directory").Output()
	must.OK(t, err)
	master := filepath.Join(strings.TrimSpace(string(daemons)), "master")
	write(t, filepath.Join(etc, "access"), "/^"+RefusedPrefix+"/ 550 5.1.1 no such mailbox\n")
	main := postfixMain(dir, uid, gid, o)
	if l := o.Login; l != nil {
		var auth *Server
		sasl := filepath.Join(etc, "sasl") // where Debian's Postfix looks first
		if l.Dovecot {
			auth = dovecot(t, l)
		} else {
			cyrusFiles(t, sasl, l, uid, gid)
		}
		main += strings.Join(postfixLogin(sasl, l, auth), "\n") + "\n"
	}
	settle(t, write(t, filepath.Join(etc, "main.cf"), main))

	log := filepath.Join(dir, "log")
	s := launch{name: "postfix", log: log, greets: true, command: func(port string) *exec.Cmd {
		settle(t, write(t, filepath.Join(etc, "master.cf"), fmt.Sprintf(postfixServices, port)))
		cmd := exec.Command(master, "-c", etc, "-d")
		cmd.Env = []string{"PATH=" + folders, "MAIL_CONFIG=" + etc}
		return cmd
	}}.start(t)
	s.stored = maildir(filepath.Join(dir, "mail", "all"), func(raw []byte) (Message, error) {
		f, data, err := traceFields(raw, "Return-Path", "X-Original-To", "Delivered-To", "Received")
		return Message{strings.Trim(f["Return-Path"], "<>"), []string{f["X-Original-To"]}, data}, err
	})
	return s
}

func postfixMain(dir string, uid, gid int, o Options) string {
	main := []string{
		"compatibility_level = 3.6",
		"queue_directory = " + dir + "/queue",
		"data_directory = " + dir + "/data",
		"maillog_file = " + dir + "/log",
		"maillog_file_prefixes = " + dir,
		"myhostname = postfix." + Domain,
		"mydestination =",
		"mynetworks =",
		"inet_interfaces = 127.0.0.1",
		"inet_protocols = ipv4",
		"smtpd_peername_lookup = no",
		"smtpd_relay_restrictions = reject_unauth_destination",
		"smtpd_recipient_restrictions = check_recipient_access regexp:" + dir + "/etc/access",
		"smtpd_client_connection_count_limit = 0",
		// A message with many recipients that it refuses is no attack here.
		"smtpd_error_sleep_time = 0",
		"smtpd_hard_error_limit = 1000",
		"message_size_limit = 67108864",
		"virtual_mailbox_domains = " + Domain,
		"virtual_mailbox_limit = 0",
		"virtual_mailbox_base = " + dir + "/mail",
		"virtual_mailbox_maps = static:all/",
		"virtual_uid_maps = static:" + strconv.Itoa(uid),
		"virtual_gid_maps = static:" + strconv.Itoa(gid),
		"virtual_minimum_uid = 1",
		// Header fields stay as they are.
		"local_header_rewrite_clients =",
		"smtputf8_enable = yes",
	}
	if o.tls() {
		main = append(main, "smtpd_tls_security_level = may",
			"smtpd_tls_cert_file = "+o.Certificate, "smtpd_tls_key_file = "+o.Key,
			"smtpd_tls_received_header = no", "smtpd_tls_loglevel = 1")
	}
	if o.ClientCA != "" {
		main = append(main, "smtpd_tls_security_level = encrypt",
			"smtpd_tls_req_ccert = yes", "smtpd_tls_CAfile = "+o.ClientCA)
	}
	if o.NoPipelining {
		main = append(main, "smtpd_discard_ehlo_keywords = pipelining")
	}
	return strings.Join(main, "\n") + "\n"
}

// SMTPSink starts Postfix's smtp-sink, which takes whatever comes and keeps
// nothing. It listens with a long queue, for load.
func SMTPSink(t testing.TB) *Server {
	t.Helper()
	sink := find(t, "smtp-sink")
	log := filepath.Join(folder(t), "log")
	return launch{name: "smtp-sink", log: log, greets: true, command: func(port string) *exec.Cmd {
		args := []string{"127.0.0.1:" + port, "1024"}
		if os.Geteuid() == 0 {
			args = append([]string{"-u", "nobody"}, args...)
		}
		cmd := exec.Command(sink, args...)
		cmd.Env = []string{"PATH=" + folders}
		return cmd
	}}.start(t)
}

// settle makes a file look old: Postfix waits for files to be no longer edited.
func settle(t testing.TB, path string) {
	t.Helper()
	old := time.Now().Add(-time.Hour)
	must.OK(t, os.Chtimes(path, old, old))
}

// own makes a folder that belongs to someone.
func own(t testing.TB, path string, mode os.FileMode, uid, gid int) {
	t.Helper()
	must.OK(t, os.MkdirAll(path, 0o755))
	must.OK(t, os.Chown(path, uid, gid))
	must.OK(t, os.Chmod(path, mode))
}

func number(t testing.TB, text string) int {
	t.Helper()
	n, err := strconv.Atoi(text)
	must.OK(t, err)
	return n
}

// inRoot has cmd run with dir as its root folder.
func inRoot(cmd *exec.Cmd, dir string) *exec.Cmd {
	cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: dir}
	cmd.Dir = "/"
	return cmd
}
