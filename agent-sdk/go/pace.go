package mayfly

// When to renew and when to retry: the numbers that every package of Mayfly shares. Chance is in 0 to 1, and spreads what many
// agents do at the same moment.

import (
	"context"
	"math"
	"math/rand/v2"
	"time"
)

const (
	// The shortest pause before a retry.
	first = 200 * time.Millisecond
	// The longest pause before the stream of bundles is opened again.
	longest = 30 * time.Second
	// How often the clock is read while waiting, because clocks can be set and machines sleep.
	look = 20 * time.Second
	// A stream that was useful and stayed open for this long did not fail.
	stood = time.Second
	// The time limit of one call.
	patience = 10 * time.Second
	// Attempts of a first call while nobody answers.
	tries = 4
)

// What time it is. A test of clocks that are set changes it before anything else runs.
var now = time.Now

func chance() float64 { return rand.Float64() }

func part(of time.Duration, share float64) time.Duration { return time.Duration(float64(of) * share) }

// How long after its issuance a certificate of this life is renewed.
func renewal(life time.Duration, chance float64) time.Duration { return part(life, 0.3+0.4*chance) }

// How long after a failure a renewal is retried when the certificate is valid for `left`: whoever has little time left comes first.
func again(left time.Duration, chance float64) time.Duration {
	return max(part(left, 0.2+0.6*math.Pow(chance, 0.7)), part(first, 0.5+0.5*chance))
}

// How long after a repeated failure the stream of bundles is opened again.
func back(left time.Duration, chance float64) time.Duration {
	return part(max(min(left/2, longest), first), 0.5+0.5*chance)
}

// A pause that doubles with each failure in a row, up to the longest.
func backoff(from, to time.Duration, failures int, chance float64) time.Duration {
	return part(min(part(from, math.Pow(2, float64(min(failures, 16)))), to), 0.5+0.5*chance)
}

// The pause between attempts of a call that has no deadline of its own.
func calls(failures int, chance float64) time.Duration {
	return backoff(first, 1250*time.Millisecond, failures, chance)
}

// The pause before a stream of a Workload API is opened again.
func streams(failures int, chance float64) time.Duration {
	return backoff(50*time.Millisecond, 5*time.Second, failures, chance)
}

// Waits, and says whether it was not stopped meanwhile.
func wait(ctx context.Context, pause time.Duration) bool {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return ctx.Err() == nil
	}
}

// Waits until a time of day, and says whether it was not stopped meanwhile.
func waitUntil(ctx context.Context, at time.Time) bool {
	// Without the monotonic clock, which stands still while a machine sleeps.
	for at = at.Round(0); ; {
		left := at.Sub(now())
		if left <= 0 {
			return ctx.Err() == nil
		}
		if !wait(ctx, min(left, look)) {
			return false
		}
	}
}

// Repeats a call a few times while nobody answers.
func insist[T any](ctx context.Context, ask func() (T, error)) (T, error) {
	for failures := 0; ; failures++ {
		got, err := ask()
		if err == nil || !transient(err) || failures+1 >= tries {
			return got, err
		}
		if !wait(ctx, calls(failures, chance())) {
			return got, err
		}
	}
}
