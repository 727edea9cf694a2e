package mayfly

// Sub-agents that are no processes: each has an id, scopes, a lease and an end of its own, and no key. Its parent presents.

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"mayfly.dev/agent-sdk/go/mayflyv1"
)

// An agent without a key, on the keeper of its parent.
type subAgent struct {
	*state
	parent keeper
	id     string
	stop   func() bool
}

func newSubAgent(parent *Identity, agent *mayflyv1.Agent) (*Identity, error) {
	id, err := spiffeid.FromString(agent.GetAgentId())
	if err != nil || !agent.GetKeyless() {
		return nil, wrong(ErrUnusable, "answer", "the issuer knows no agents without keys: check that both ends are of the same release")
	}
	s := newState()
	s.parent = parent.state
	p := &subAgent{state: s, parent: parent.keeper, id: agent.GetAgentId()}
	p.stop = context.AfterFunc(parent.state.ended, func() { s.endBecause(context.Cause(parent.state.ended)) })
	return &Identity{keeper: p, state: s, agent: agent, id: id}, nil
}

func (p *subAgent) mint(ctx context.Context, audience, _ string) (string, time.Time, error) {
	text, expiresAt, err := p.parent.mint(ctx, audience, p.id)
	return text, expiresAt, p.aboutMe(err)
}

func (p *subAgent) exchange(ctx context.Context, audience string, scopes []string, _ string) (string, time.Time, error) {
	text, expiresAt, err := p.parent.exchange(ctx, audience, scopes, p.id)
	return text, expiresAt, p.aboutMe(err)
}

func (p *subAgent) connected(context.Context, func(*connection) error) error {
	return wrong(ErrDenied, "PARENT_ONLY", "an agent without a key spawns nothing: the identity that spawned it does")
}

func (p *subAgent) asked(ctx context.Context, use func(*connection) error) error {
	return p.aboutMe(p.parent.asked(ctx, use))
}

func (p *subAgent) end(ctx context.Context) error {
	if _, err := p.current(); err == nil {
		err = p.aboutMe(p.parent.connected(ctx, func(c *connection) error {
			_, err := call(ctx, c, mayflyv1.IdentitiesClient.End, &mayflyv1.EndRequest{Agent: p.id})
			return err
		}))
		// Ended for another reason already: the result is the same.
		if err != nil && !errors.Is(err, ErrRevoked) {
			return err
		}
	}
	p.endBecause(wrong(ErrEnded, "ended", "this process ended the agent"))
	p.close()
	return nil
}

func (p *subAgent) close() { p.stop() }

// A final reason that is not about the caller is about this agent; those about keys and authorities are about one call.
func (p *subAgent) aboutMe(err error) error {
	var e *Error
	if !errors.As(err, &e) || e.Kind != ErrDenied || !strings.HasPrefix(e.Code, "AGENT_") {
		return err
	}
	if _, over := final[e.Code]; !over {
		return err
	}
	why := finally(e.Code, e.Hint)
	p.endBecause(why)
	return why
}
