package mayfly

// Budgets: an agent spends in its own name, never more than is left, and hears whose budget it was.

import (
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func leftOf(t *testing.T, me *Identity, unit Unit) uint64 {
	t.Helper()
	lines, err := me.Budget(t.Context())
	check(t, err)
	for _, line := range lines {
		if line.GetUnit() == unit && line.GetAgentId() == me.ID().String() {
			return line.GetLeft()
		}
	}
	t.Fatal("no such budget")
	return 0
}

func TestWhatIsSpentIsTakenFromTheAgentAndFromThoseAboveIt(t *testing.T) {
	t.Parallel()
	me := agent(t, "researcher", "demo", Asked{})
	child, err := me.Spawn(t.Context(), "worker", Asked{})
	check(t, err)
	before := leftOf(t, me, Tokens)
	left, limited, err := child.Spend(t.Context(), Tokens, 500)
	check(t, err)
	same(t, limited, true)
	same(t, left, leftOf(t, child, Tokens))
	same(t, leftOf(t, me, Tokens), before-500)
}

func TestWhatIsReservedComesBackUnlessItIsSpent(t *testing.T) {
	t.Parallel()
	me := agent(t, "worker", "demo", Asked{})
	before := leftOf(t, me, MicroUSD)
	held, err := me.Reserve(t.Context(), MicroUSD, 250_000, time.Minute)
	check(t, err)
	same(t, leftOf(t, me, MicroUSD), before-250_000)
	left, err := held.Spend(t.Context(), 190_000)
	check(t, err)
	same(t, left, 60_000)
	_, err = held.Spend(t.Context(), 60_001)
	is(t, err, ErrDenied, "BUDGET_EXHAUSTED")
	check(t, held.Release(t.Context()))
	same(t, leftOf(t, me, MicroUSD), before-190_000)
}

func TestNoUnitIsSpentTwiceAndTheRefusalSaysWhoseBudgetItWas(t *testing.T) {
	t.Parallel()
	me := agent(t, "thrifty", "demo", Asked{})
	var spent atomic.Int32
	var all sync.WaitGroup
	for range 15 {
		all.Add(1)
		go func() {
			defer all.Done()
			if _, _, err := me.Spend(t.Context(), Operations, 1); err == nil {
				spent.Add(1)
			}
		}()
	}
	all.Wait()
	same(t, spent.Load(), 10)
	_, _, err := me.Spend(t.Context(), Operations, 1)
	is(t, err, ErrDenied, "BUDGET_EXHAUSTED")
	var e *Error
	errors.As(err, &e)
	same(t, e.Details["owner"], "finance")
	same(t, e.Details["class"], "thrifty")
	same(t, e.Details["agent"], me.ID().String())
	same(t, e.Details["left"], "0")
}

func TestASubAgentWithoutAKeySpendsThroughItsParent(t *testing.T) {
	t.Parallel()
	me := agent(t, "researcher", "demo", Asked{})
	child, err := me.Spawn(t.Context(), "worker", Asked{Keyless: true})
	check(t, err)
	before := leftOf(t, me, Operations)
	_, _, err = child.Spend(t.Context(), Operations, 2)
	check(t, err)
	held, err := child.Reserve(t.Context(), Operations, 5, 0)
	check(t, err)
	_, err = held.Spend(t.Context(), 1)
	check(t, err)
	check(t, held.Release(t.Context()))
	same(t, leftOf(t, me, Operations), before-3)
}
