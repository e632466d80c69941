package tlsc

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
	"golang.org/x/crypto/ocsp"
)

const (
	// stapleSkew is how far the responder's clock may be from ours.
	stapleSkew = 5 * time.Minute
	// stapleAge is how long a response counts that does not say when the next one is
	// due. RFC 6960 section 4.2.2.1 says that newer information is then available all
	// the time, but we cannot ask for it.
	stapleAge = 24 * time.Hour
	// statusRequest is the TLS feature "must staple" (RFC 7633, RFC 6066 section 8).
	statusRequest = 5
)

var oidTLSFeature = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 1, 24}

// badStaple begins the reason of FaultStaple.
const badStaple = "stapled OCSP response "

// judgeStaple reaches the verdict on the OCSP response that the server has stapled to
// leaf. A revoked certificate is fatal. So is a certificate that must have a good
// response and has none. Every other response that is not good, or not of today, is
// told but not fatal, because the server could have sent nothing instead.
func judgeStaple(staple []byte, leaf *x509.Certificate, chains [][]*x509.Certificate, now time.Time) Verdict {
	must := mustStaple(leaf)
	if len(staple) == 0 {
		if must {
			return bad(FaultNoStaple, "certificate must have an OCSP response stapled to it, and has none")
		}
		return Verdict{}
	}
	var failed error
	for _, issuer := range issuers(leaf, chains) {
		err := checkStaple(staple, leaf, issuer, now)
		if err == nil {
			return Verdict{}
		}
		if revoked := (revokedError{}); errors.As(err, &revoked) {
			return bad(FaultRevoked, err.Error())
		}
		failed = err
	}
	return Verdict{Fault: FaultStaple, Reason: badStaple + failed.Error(), fatal: must}
}

// issuers are the certificates that may have signed leaf. Each chain can have another
// one. A certificate that is an anchor itself has only itself.
func issuers(leaf *x509.Certificate, chains [][]*x509.Certificate) []*x509.Certificate {
	var all []*x509.Certificate
	for _, chain := range chains {
		issuer := leaf
		if len(chain) > 1 {
			issuer = chain[1]
		}
		if !slices.ContainsFunc(all, issuer.Equal) {
			all = append(all, issuer)
		}
	}
	return all
}

type revokedError struct{ at time.Time }

func (e revokedError) Error() string { return "certificate was revoked on " + day(e.at) }

// checkStaple returns nil if the response says that leaf is good and can be believed. A
// revocation is believed however old it is, because it is never undone.
func checkStaple(staple []byte, leaf, issuer *x509.Certificate, now time.Time) error {
	response, err := ocsp.ParseResponseForCert(staple, leaf, nil)
	if err != nil {
		return fmt.Errorf("cannot be used: %s", brief(err))
	}
	if err := checkResponder(response, issuer, now); err != nil {
		return err
	}
	if !namesIssuer(response, leaf, issuer) {
		return errors.New("is for another certificate")
	}
	switch {
	case response.Status == ocsp.Revoked:
		return revokedError{response.RevokedAt}
	case response.Status != ocsp.Good:
		return errors.New("does not know the certificate")
	case now.Add(stapleSkew).Before(response.ThisUpdate):
		return fmt.Errorf("is not valid before %s", day(response.ThisUpdate))
	}
	until := response.NextUpdate
	if until.IsZero() {
		until = response.ThisUpdate.Add(stapleAge)
	}
	if now.After(until.Add(stapleSkew)) {
		return fmt.Errorf("expired on %s", day(until))
	}
	return nil
}

// checkResponder checks that the response is signed by the issuer of the certificate or
// by somebody whom the issuer has appointed (RFC 6960 section 4.2.2.2). The library
// checks the signature of a response with the certificate in it, but not what that
// certificate is for.
func checkResponder(response *ocsp.Response, issuer *x509.Certificate, now time.Time) error {
	responder := response.Certificate
	switch {
	case responder == nil:
		if response.CheckSignatureFrom(issuer) != nil {
			return errors.New("has a bad signature")
		}
	case responder.Equal(issuer): // ParseResponseForCert has checked the signature
	case !sameName(responder.RawIssuer, issuer.RawSubject),
		issuer.CheckSignature(responder.SignatureAlgorithm, responder.RawTBSCertificate, responder.Signature) != nil:
		return errors.New("is not signed by the authority of the certificate")
	case !slices.Contains(responder.ExtKeyUsage, x509.ExtKeyUsageOCSPSigning):
		return errors.New("is signed by a certificate that is not for this")
	case now.Before(responder.NotBefore), now.After(responder.NotAfter):
		return fmt.Errorf("is signed by a certificate that %s", outOfDate(responder, now))
	case weak(responder, responder) != "":
		return fmt.Errorf("is signed by one whose %s", weak(responder, responder))
	}
	return nil
}

// namesIssuer reports whether the answer about the serial number is about a certificate
// of this issuer (RFC 6960 section 4.1.1). The library does not check that. The answer
// may spell the issuer's name as the issuer does or as the certificate does.
func namesIssuer(response *ocsp.Response, leaf, issuer *x509.Certificate) bool {
	name, key, ok := certID(response.TBSResponseData, leaf.SerialNumber)
	if !ok || !response.IssuerHash.Available() {
		return false
	}
	var info struct {
		Algorithm asn1.RawValue
		Key       asn1.BitString
	}
	if _, err := asn1.Unmarshal(issuer.RawSubjectPublicKeyInfo, &info); err != nil {
		return false
	}
	return (bytes.Equal(name, digest(response.IssuerHash, leaf.RawIssuer)) || bytes.Equal(name, digest(response.IssuerHash, issuer.RawSubject))) &&
		bytes.Equal(key, digest(response.IssuerHash, info.Key.RightAlign()))
}

func digest(hash crypto.Hash, data []byte) []byte {
	h := hash.New()
	h.Write(data)
	return h.Sum(nil)
}

// certID returns the hashes of the first answer about serial, the one that the library
// uses (RFC 6960 section 4.2.1).
func certID(tbs []byte, serial *big.Int) (name, key []byte, ok bool) {
	var data, answers cryptobyte.String
	input := cryptobyte.String(tbs)
	if !input.ReadASN1(&data, cbasn1.SEQUENCE) ||
		!data.SkipOptionalASN1(cbasn1.Tag(0).Constructed().ContextSpecific()) || // version
		!data.ReadAnyASN1Element(new(cryptobyte.String), new(cbasn1.Tag)) || // responder
		!data.SkipASN1(cbasn1.GeneralizedTime) ||
		!data.ReadASN1(&answers, cbasn1.SEQUENCE) {
		return nil, nil, false
	}
	for !answers.Empty() {
		var answer, id cryptobyte.String
		var nameHash, keyHash []byte
		number := new(big.Int)
		if !answers.ReadASN1(&answer, cbasn1.SEQUENCE) ||
			!answer.ReadASN1(&id, cbasn1.SEQUENCE) ||
			!id.SkipASN1(cbasn1.SEQUENCE) || // hash algorithm
			!id.ReadASN1Bytes(&nameHash, cbasn1.OCTET_STRING) ||
			!id.ReadASN1Bytes(&keyHash, cbasn1.OCTET_STRING) ||
			!id.ReadASN1Integer(number) {
			return nil, nil, false
		}
		if number.Cmp(serial) == 0 {
			return nameHash, keyHash, true
		}
	}
	return nil, nil, false
}

// mustStaple reports whether the certificate asks to be refused without a stapled
// response. An extension that cannot be read counts as if it asked for that.
func mustStaple(leaf *x509.Certificate) bool {
	for _, extension := range leaf.Extensions {
		if !extension.Id.Equal(oidTLSFeature) {
			continue
		}
		var features []int
		rest, err := asn1.Unmarshal(extension.Value, &features)
		return err != nil || len(rest) > 0 || slices.Contains(features, statusRequest)
	}
	return false
}
