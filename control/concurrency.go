package control

// DefaultConcurrencyRemote is how many remote deliveries qmail-send has at a time if nothing
// says otherwise (qmail-send(8)).
const DefaultConcurrencyRemote = 20

// ReadConcurrencyRemote reads control/concurrencyremote of a home, which is qmail-send's and
// bounds the remote deliveries that there are at a time. An error is an *Error.
func ReadConcurrencyRemote(home string) (int, error) {
	d, err := openDir(home)
	if err != nil {
		return 0, err
	}
	const most = 65000 // of the big-concurrency patches
	n, err := d.number("concurrencyremote", DefaultConcurrencyRemote, most, "a whole number of deliveries from 0 to 65000")
	return int(n), err
}
