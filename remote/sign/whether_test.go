package sign

import (
	"strings"
	"testing"

	"nightmare.mail/mxf/integration/must"
)

func TestSender(t *testing.T) {
	ours := func(domain string) bool {
		return domain == "shop.example" || domain == "xn--bcher-kva.example" || domain == "[192.0.2.1]"
	}
	const (
		none      = "the envelope sender has no domain"
		foreign   = "the envelope sender is not one of ours"
		forwarded = ": the mail is forwarded"
	)
	tests := map[string]string{ // "": signed
		"":                                 "",
		"joe@shop.example":                 "",
		"joe@SHOP.Example.":                "",
		"@shop.example":                    "",
		"a@b@shop.example":                 "",
		"joe@b\xc3\xbccher.example":        "",
		"joe@[192.0.2.1]":                  "",
		"xSRS0=a@shop.example":             "",
		"SRS@shop.example":                 "",
		"root":                             none,
		"shop.example":                     none,
		"joe@":                             foreign,
		"joe@other.example":                foreign,
		"joe@www.shop.example":             foreign,
		"joe@shop.example@other.example":   foreign,
		"joe@\xff":                         foreign,
		"SRS0=x=y=other=joe@other.example": foreign,
		"SRS0=x=y=other=joe@shop.example":  "the envelope sender begins with SRS0" + forwarded,
		"SRS1+x=y==z=other=a@shop.example": "the envelope sender begins with SRS1" + forwarded,
		"srs0-x=y=other=joe@shop.example":  "the envelope sender begins with SRS0" + forwarded,
		"SRS0@shop.example":                "the envelope sender begins with SRS0" + forwarded,
		"Srs1=a@b@shop.example":            "the envelope sender begins with SRS1" + forwarded,
	}
	for sender, want := range tests {
		if got := text(Sender(sender, ours)); got != want {
			t.Errorf("%q: %q, want %q", sender, got, want)
		}
	}
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func TestHeader_NullSender(t *testing.T) {
	const (
		delivered = "the envelope sender is empty and the header has Delivered-To"
		network   = "the envelope sender is empty and the message came from the network"
	)
	tests := map[string]string{ // "": signed
		from: "",
		"Received: (qmail 123 invoked for bounce); 22 Nov 2026 08:17:00 -0000\n" + from:           "",
		"Received: (qmail 123 invoked by uid 1000); 22 Nov 2026 08:17:00 -0000\n" + from:          "",
		"Received: (qmail 123 invoked from network); 22 Nov 2026 08:17:00 -0000\n" + from:         network,
		"Received: (qmail 1 invoked from network)\r\n" + from:                                     network,
		from + "Received: (qmail 123 invoked from network); 22 Nov 2026 08:17:00 -0000\n":         "",
		"Received: (qmail 1 invoked by alias)\nReceived: (qmail 1 invoked from network)\n" + from: "",
		"received: (qmail 1 invoked from network)\n" + from:                                       "",
		"Received: (qmail  invoked from network)\n" + from:                                        "",
		"Received:  (qmail 1 invoked from network)\n" + from:                                      "",
		"From joe Mon\nReceived: (qmail 1 invoked from network)\n" + from:                         network,
		from + "delivered-TO : joe@shop.example\n":                                                delivered,
		from + "\nDelivered-To: joe@shop.example\n":                                               "",
		from + "X-Delivered-To: joe@shop.example\n":                                               "",
	}
	for message, want := range tests {
		h := must.Get(Read(strings.NewReader(message)))(t)
		if got := text(h.NullSender()); got != want {
			t.Errorf("%q: %q, want %q", message, got, want)
		}
	}
}
