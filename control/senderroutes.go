package control

import "fmt"

// SenderRoutes are the artificial routes by sender.
type SenderRoutes struct{ senders keyed[Relay] }

func (d dir) senderRoutes(s *Settings) error {
	data, err := d.read("senderroutes")
	if err != nil {
		return err
	}
	// A line for smtp that is malformed is one mistake, not one of each route too.
	s.SenderRoutes, err = d.parseSenderRoutes(data, s.Service(SMTP) != nil || d.all.has("protocols"))
	return err
}

// parseSenderRoutes reads the file. smtp says whether there is a protocol for its relays.
func (d dir) parseSenderRoutes(data []byte, smtp bool) (routes SenderRoutes, err error) {
	err = d.entries("senderroutes", data, func(line int, entry string) string {
		key, relay, problem := parseSenderRoute(entry)
		switch {
		case problem != "":
			return problem
		case relay.Name() != "" && !smtp:
			return "expected no relay, which would be spoken to by the smtp of control/protocols, and there is no smtp"
		}
		relay.Line = line
		if !routes.senders.add(key, relay) {
			return "expected each sender once, found this one for the second time"
		}
		return ""
	})
	if err != nil {
		return SenderRoutes{}, err
	}
	return routes, nil
}

// parseSenderRoute reads one line. problem says what is wrong, and is "" if nothing is.
func parseSenderRoute(entry string) (key string, relay Relay, problem string) {
	wrong := func(problem string) (string, Relay, string) {
		return "", Relay{}, withoutLogin([]byte(entry), problem)
	}
	sender, to, more := cutField(entry)
	if !more {
		return wrong(fmt.Sprintf("expected sender:relay or sender:relay:port, found %s", found(entry)))
	}
	if key, problem = parseSender(sender); problem != "" {
		return wrong(problem)
	}
	if relay, problem = parseRelay(to); problem != "" {
		return wrong(problem)
	}
	return key, relay, ""
}

// Lookup returns the route for an envelope sender, nil if no line fits. sender is as in
// the argument: "" is the null sender. A route without a relay is found too: the mail goes
// by SRV and MX, and not by routes of the empty domain.
func (r SenderRoutes) Lookup(sender string) *Relay {
	if relay, fits := r.senders.first(senderKeys(sender)); fits {
		return &relay
	}
	return nil
}
