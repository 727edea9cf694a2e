package mayfly

// The budget of an agent: spending, reserving and looking, in the agent's own name.

import (
	"context"
	"crypto/rand"
	"time"

	"google.golang.org/grpc"

	"mayfly.dev/agent-sdk/go/mayflyv1"
)

// Unit is what a budget counts.
type Unit = mayflyv1.BudgetUnit

// The units of budgets. Dollars are counted in millionths, so that nothing is rounded.
const (
	Operations = mayflyv1.BudgetUnit_BUDGET_UNIT_OPS
	Tokens     = mayflyv1.BudgetUnit_BUDGET_UNIT_TOKENS
	MicroUSD   = mayflyv1.BudgetUnit_BUDGET_UNIT_MICRO_USD
)

// Spend takes from the agent's budget and from that of each agent above it. It returns the least that any of them has left; limited is
// false if none has a limit. A lost answer is asked for again without spending twice. If one of them has less left, nothing was spent,
// and the error's Code is BUDGET_EXHAUSTED: its Details say whose budget it is (`agent`, `class`, `owner`) and what is `left`.
func (i *Identity) Spend(ctx context.Context, unit Unit, amount uint64) (left uint64, limited bool, err error) {
	got, err := i.spend(ctx, unit, amount, 0)
	return got.GetLeft(), got != nil && got.Left != nil, err
}

func (i *Identity) spend(ctx context.Context, unit Unit, amount, reservation uint64) (*mayflyv1.SpendResponse, error) {
	request := &mayflyv1.SpendRequest{
		Agent: i.ID().String(), Unit: unit, Amount: amount, Reservation: reservation, RequestId: rand.Text(),
	}
	return budgeted(ctx, i, mayflyv1.BudgetsClient.Spend, request)
}

// Reservation is a part of the budgets that is held for an agent. What is not spent comes back by Release, with time, and when the agent
// ends.
type Reservation struct {
	identity *Identity
	unit     Unit
	id       uint64
	// ExpiresAt is when it comes back by itself.
	ExpiresAt time.Time
}

// Reserve holds a part of the same budgets for what may be spent in `life`: ten minutes if it is 0, and an hour at most.
func (i *Identity) Reserve(ctx context.Context, unit Unit, amount uint64, life time.Duration) (*Reservation, error) {
	request := &mayflyv1.ReserveRequest{Agent: i.ID().String(), Unit: unit, Amount: amount, RequestId: rand.Text()}
	if life > 0 {
		request.LifeSeconds = uint32(min(max(life/time.Second, 1), 1<<31))
	}
	got, err := budgeted(ctx, i, mayflyv1.BudgetsClient.Reserve, request)
	if err != nil {
		return nil, err
	}
	return &Reservation{i, unit, got.GetReservation(), got.GetExpiresAt().AsTime()}, nil
}

// Spend takes from what is held, and returns what is left of it.
func (r *Reservation) Spend(ctx context.Context, amount uint64) (left uint64, err error) {
	got, err := r.identity.spend(ctx, r.unit, amount, r.id)
	return got.GetReservationLeft(), err
}

// Release gives back what was not spent.
func (r *Reservation) Release(ctx context.Context) error {
	_, err := budgeted(ctx, r.identity, mayflyv1.BudgetsClient.Release, &mayflyv1.ReleaseRequest{Reservation: r.id})
	return err
}

// Budget is what may be spent: for each unit the agent's own account, then those above it, the parent first.
func (i *Identity) Budget(ctx context.Context) ([]*mayflyv1.BudgetLine, error) {
	got, err := budgeted(ctx, i, mayflyv1.BudgetsClient.GetBudget, &mayflyv1.GetBudgetRequest{Agent: i.ID().String()})
	return got.GetLines(), err
}

func budgeted[Q, A any](
	ctx context.Context, i *Identity, method func(mayflyv1.BudgetsClient, context.Context, Q, ...grpc.CallOption) (A, error), request Q,
) (A, error) {
	var none A
	if _, err := i.state.current(); err != nil {
		return none, err
	}
	return insist(ctx, func() (got A, err error) {
		err = i.keeper.asked(ctx, func(c *connection) (err error) {
			got, err = calling(ctx, c, false, func(ctx context.Context, on *grpc.ClientConn) (A, error) {
				return method(mayflyv1.NewBudgetsClient(on), ctx, request)
			})
			return err
		})
		return got, err
	})
}
