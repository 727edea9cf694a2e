// The authenticator of Kubernetes' API server for JWTs, as a server of its own: main CONFIGURATION ADDRESS. A request with a bearer token is
// answered with the user, the groups and the extra that the API server would go on with, or refused.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apiserver/pkg/apis/apiserver"
	"k8s.io/apiserver/pkg/apis/apiserver/install"
	"k8s.io/apiserver/pkg/apis/apiserver/validation"
	authenticationcel "k8s.io/apiserver/pkg/authentication/cel"
	"k8s.io/apiserver/pkg/authentication/request/bearertoken"
	"k8s.io/apiserver/pkg/server/dynamiccertificates"
	"k8s.io/apiserver/plugin/pkg/authenticator/token/oidc"
)

func main() {
	if err := serve(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func serve(path, address string) error {
	scheme := runtime.NewScheme()
	install.Install(scheme)
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	read := &apiserver.AuthenticationConfiguration{}
	codecs := serializer.NewCodecFactory(scheme, serializer.EnableStrict)
	if err := runtime.DecodeInto(codecs.UniversalDecoder(), text, read); err != nil {
		return err
	}
	if errs := validation.ValidateAuthenticationConfiguration(authenticationcel.NewDefaultCompiler(), read, nil); len(errs) > 0 {
		return errs.ToAggregate()
	}
	one := read.JWT[0]
	trusted, err := dynamiccertificates.NewStaticCAContent("issuer", []byte(one.Issuer.CertificateAuthority))
	if err != nil {
		return err
	}
	tokens, err := oidc.New(context.Background(), oidc.Options{
		JWTAuthenticator:     one,
		CAContentProvider:    trusted,
		SupportedSigningAlgs: oidc.AllValidSigningAlgorithms(),
	})
	if err != nil {
		return err
	}
	asked := bearertoken.New(tokens)
	answer := func(w http.ResponseWriter, r *http.Request) {
		found, ok, err := asked.AuthenticateRequest(r)
		if err != nil || !ok {
			http.Error(w, fmt.Sprint(err), http.StatusUnauthorized)
			return
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"name": found.User.GetName(), "groups": found.User.GetGroups(), "extra": found.User.GetExtra()})
	}
	return http.ListenAndServe(address, http.HandlerFunc(answer))
}
