package domain

import "testing"

func TestParseServer(t *testing.T) {
	for text, want := range map[string]string{
		"127.0.0.1": "127.0.0.1:53", "127.0.0.1:5300": "127.0.0.1:5300", "::1": "[::1]:53", "[::1]": "[::1]:53", "[::1]:5300": "[::1]:5300",
		"": "", "name": "", "127.0.0.1:": "", "127.0.0.1:0": "", "127.0.0.1:65536": "", "127.0.0.1:-1": "", "[::1": "", "[::1]x": "", "127.0.0.1:53:53": "",
	} {
		got, err := ParseServer(text)
		if (err == nil) != (want != "") || err == nil && got.String() != want {
			t.Errorf("%q: %v, %v, want %q", text, got, err, want)
		}
	}
}
