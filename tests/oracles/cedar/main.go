// Random policies and questions over Mayfly's schema, with the answers of cedar-go: a folder for `mayfly policy test`.
//
// Usage: cedar DIR SEED CASES. The questions are built here from the published schema alone, and the answers are what Mayfly says of a
// set: an error is a no, one forbid is a no, and what is neither is permitted unless `set.toml` says otherwise.
package main

import (
	"fmt"
	"math/rand"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/types"
)

var (
	classes   = []string{"researcher", "worker"}
	workloads = []string{"orchestrator", "batch"}
	audiences = []string{"https://search.example", "https://mail.example"}
	scopes    = []string{"search:read", "mail:send", "files:read"}
	agents    = []string{"spiffe://t/agent/researcher/1", "spiffe://t/agent/researcher/2", "spiffe://t/agent/worker/3"}
	users     = []string{"dev/alice", "dev/bob", "idp/alice"}
)

// What holds in each action of the schema alone.
type action struct {
	name      string
	workload  bool
	onClass   bool
	resources []string
}

var actions = []action{
	{"spawn", true, true, classes}, {"mint", false, false, audiences},
	{"exchange", false, false, audiences}, {"renew", false, true, classes},
}

func pick[T any](r *rand.Rand, of []T) T { return of[r.Intn(len(of))] }

func some(r *rand.Rand, of []string) []string {
	var found []string
	for _, one := range of {
		if r.Intn(2) == 0 {
			found = append(found, one)
		}
	}
	return found
}

func entity(kind, id string) string { return fmt.Sprintf("%s::%q", kind, id) }

func entities(kind string, ids []string) string {
	var all []string
	for _, id := range ids {
		all = append(all, entity(kind, id))
	}
	return "[" + strings.Join(all, ", ") + "]"
}

// A number of the context, or of sums and products of them. A large factor overflows.
func number(r *rand.Rand, depth int) string {
	switch n := r.Intn(10); {
	case depth > 0 && n == 0:
		return fmt.Sprintf("(%s + %s)", number(r, depth-1), number(r, depth-1))
	case depth > 0 && n == 1:
		return fmt.Sprintf("(%s - %s)", number(r, depth-1), number(r, depth-1))
	case n == 2 && r.Intn(8) == 0:
		return fmt.Sprintf("(%s * 9223372036854775807)", number(r, 0))
	case n < 6:
		return pick(r, []string{"context.depth", "context.lease", "context.time.hour", "context.time.minute",
			"context.time.weekday", "context.live.user", "context.live.root", "context.live.class", "context.live.siblings"})
	default:
		return strconv.Itoa(r.Intn(25))
	}
}

// A condition that strict validation takes for every action.
func condition(r *rand.Rand, depth int) string {
	if depth > 0 {
		a, b := condition(r, depth-1), condition(r, depth-1)
		switch r.Intn(5) {
		case 0:
			return fmt.Sprintf("(%s && %s)", a, b)
		case 1:
			return fmt.Sprintf("(%s || %s)", a, b)
		case 2:
			return fmt.Sprintf("!(%s)", a)
		case 3:
			return fmt.Sprintf("(if %s then %s else %s)", condition(r, 0), a, b)
		}
	}
	switch r.Intn(15) {
	case 0:
		return "context.delegated"
	case 1:
		return fmt.Sprintf("context.scopes.contains(%s)", entity("Scope", pick(r, scopes)))
	case 2:
		return fmt.Sprintf("context.scopes.%s(%s)", pick(r, []string{"containsAll", "containsAny"}),
			entities("Scope", []string{pick(r, scopes), pick(r, scopes)}))
	case 3:
		return fmt.Sprintf("context.audiences.contains(%s)", entity("Audience", pick(r, audiences)))
	case 4:
		return fmt.Sprintf("(context has user && context.user == %s)", entity("User", pick(r, users)))
	case 5:
		return fmt.Sprintf("(context has user && context.user.%s)", pick(r, []string{`provider == "dev"`, `sub like "al*e"`, `sub != "bob"`}))
	case 6:
		return fmt.Sprintf("(context has acr && context.acr == %q)", pick(r, []string{"1", "2"}))
	case 7:
		return fmt.Sprintf("(context has sign_in_age && context.sign_in_age > %d)", r.Intn(100))
	case 8:
		return fmt.Sprintf("(if context has left then context.left <= %d else %s)", r.Intn(10), pick(r, []string{"true", "false"}))
	case 9:
		return fmt.Sprintf("(principal is Agent && principal.class == %s)", entity("Class", pick(r, classes)))
	case 10:
		return fmt.Sprintf("(principal is Agent && principal.depth %s %s)", pick(r, []string{"<", ">="}), number(r, 0))
	case 11:
		return fmt.Sprintf("(principal is Agent && principal in %s)", pick(r, []string{entity("Agent", pick(r, agents)),
			entity("Workload", pick(r, workloads)), entity("Class", pick(r, classes))}))
	case 12:
		return pick(r, []string{"(context has first_use && context.first_use)", "(context has first_use && !context.first_use)",
			"(if context has first_use then context.first_use else true)"})
	case 13:
		return fmt.Sprintf("(resource is Class && resource.owner == %q)", pick(r, []string{"a", "b"}))
	default:
		return fmt.Sprintf("%s %s %s", number(r, 1), pick(r, []string{"<", "<=", ">", ">=", "==", "!="}), number(r, 1))
	}
}

func policy(r *rand.Rand, n int) string {
	act := pick(r, actions)
	principal := pick(r, []string{"principal", "principal", "principal is Agent", "principal in " + entity("Agent", pick(r, agents)),
		"principal in " + entity("Class", pick(r, classes)), "principal in " + entity("Workload", pick(r, workloads)),
		"principal == " + entity("Agent", pick(r, agents)), "principal is Agent in " + entity("Workload", pick(r, workloads))})
	scope, resource := "action", "resource"
	switch r.Intn(3) {
	case 0:
		scope = "action == " + entity("Action", act.name)
		if r.Intn(2) == 0 {
			kind := "Audience"
			if act.onClass {
				kind = "Class"
			}
			resource = "resource == " + entity(kind, pick(r, act.resources))
		}
	case 1:
		scope = "action in " + entities("Action", []string{"spawn", act.name})
	}
	effect, word := pick(r, []string{"permit", "forbid"}), pick(r, []string{"when", "unless"})
	return fmt.Sprintf("@id(\"p%d\") @owner(\"o\") @reason(\"r\")\n%s (%s, %s, %s)\n%s { %s };\n", n, effect, principal, scope,
		resource, word, condition(r, 2))
}

func uid(kind, id string) types.EntityUID {
	return types.NewEntityUID(types.EntityType(kind), types.String(id))
}

func set(kind string, ids []string) types.Set {
	var all []types.Value
	for _, id := range ids {
		all = append(all, uid(kind, id))
	}
	return types.NewSet(all...)
}

func long(n int64) types.Long { return types.Long(n) }

func list(ids []string) string {
	var quoted []string
	for _, id := range ids {
		quoted = append(quoted, strconv.Quote(id))
	}
	return "[" + strings.Join(quoted, ", ") + "]"
}

// A question: as Mayfly's file of cases has it, and as cedar-go has it.
func question(r *rand.Rand) (string, types.EntityMap, types.Request) {
	act := pick(r, actions)
	var toml []string
	put := func(name, value string) { toml = append(toml, name+" = "+value) }
	all := types.EntityMap{}
	context := types.RecordMap{}
	depth, owner := int64(r.Intn(4)+1), pick(r, []string{"a", "b"})
	put("depth", fmt.Sprint(depth))
	put("owner", strconv.Quote(owner))
	context["depth"] = long(depth)

	at := time.Unix(1_790_000_000+r.Int63n(30*86_400), 0).UTC()
	put("time", strconv.Quote(at.Format(time.RFC3339)))
	weekday := int64(at.Weekday())
	if weekday == 0 {
		weekday = 7
	}
	context["time"] = types.NewRecord(types.RecordMap{"unix": long(at.Unix()), "hour": long(int64(at.Hour())),
		"minute": long(int64(at.Minute())), "weekday": long(weekday)})

	given, wanted := some(r, scopes), some(r, audiences)
	put("scopes", list(given))
	put("audiences", list(wanted))
	context["scopes"], context["audiences"] = set("Scope", given), set("Audience", wanted)
	context["delegated"] = types.False
	if r.Intn(3) > 0 {
		user := pick(r, users)
		provider, sub, _ := strings.Cut(user, "/")
		put("user", strconv.Quote(user))
		context["delegated"], context["user"] = types.True, uid("User", user)
		all[uid("User", user)] = types.Entity{UID: uid("User", user), Attributes: types.NewRecord(types.RecordMap{
			"provider": types.String(provider), "sub": types.String(sub)})}
	}
	lease := r.Int63n(30)
	put("lease", fmt.Sprint(lease))
	context["lease"] = long(lease)
	live, parts := types.RecordMap{}, []string{}
	for _, name := range []string{"user", "root", "class", "siblings"} {
		n := r.Int63n(25)
		live[types.String(name)] = long(n)
		parts = append(parts, fmt.Sprintf("%s = %d", name, n))
	}
	put("live", "{ "+strings.Join(parts, ", ")+" }")
	context["live"] = types.NewRecord(live)
	for _, name := range []string{"left", "sign_in_age"} {
		if r.Intn(2) == 0 {
			n := r.Int63n(100)
			put(name, fmt.Sprint(n))
			context[types.String(name)] = long(n)
		}
	}
	if r.Intn(2) == 0 {
		acr := pick(r, []string{"1", "2"})
		put("acr", strconv.Quote(acr))
		context["acr"] = types.String(acr)
	}

	// It is known where a token is asked for, and may be known elsewhere in an owner's own test.
	if act.name == "mint" || act.name == "exchange" || r.Intn(4) == 0 {
		first := r.Intn(2) == 0
		put("first_use", fmt.Sprint(first))
		context["first_use"] = types.Boolean(first)
	}

	principal := uid("Workload", pick(r, workloads))
	if !act.workload || r.Intn(2) == 0 {
		id, root := pick(r, agents), pick(r, workloads)
		// Nobody stands above itself.
		above := slices.DeleteFunc(some(r, agents), func(one string) bool { return one == id })
		class := strings.Split(id, "/")[4]
		principal = uid("Agent", id)
		parents := []types.EntityUID{uid("Class", class), uid("Workload", root)}
		for _, one := range above {
			parents = append(parents, uid("Agent", one))
		}
		put("root", strconv.Quote(root))
		put("ancestors", list(above))
		all[principal] = types.Entity{UID: principal, Parents: types.NewEntityUIDSet(parents...), Attributes: types.NewRecord(types.RecordMap{
			"class": uid("Class", class), "root": uid("Workload", root), "depth": long(depth)})}
	}
	resource := uid("Audience", pick(r, audiences))
	if act.onClass {
		resource = uid("Class", pick(r, classes))
		all[resource] = types.Entity{UID: resource, Attributes: types.NewRecord(types.RecordMap{"owner": types.String(owner)})}
	}
	text := fmt.Sprintf("principal = '%s'\naction = %q\nresource = '%s'\ncontext = { %s }\n", principal, act.name, resource, strings.Join(toml, ", "))
	return text, all, types.Request{Principal: principal, Action: uid("Action", act.name), Resource: resource, Context: types.NewRecord(context)}
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func main() {
	dir := os.Args[1]
	seed, err := strconv.ParseInt(os.Args[2], 10, 64)
	check(err)
	cases, err := strconv.Atoi(os.Args[3])
	check(err)
	r := rand.New(rand.NewSource(seed))
	var texts strings.Builder
	for n := range r.Intn(12) + 1 {
		texts.WriteString(policy(r, n))
	}
	deny := seed%2 == 0
	if deny {
		check(os.WriteFile(filepath.Join(dir, "set.toml"), []byte("default = \"deny\"\nowner = \"o\"\nreason = \"r\"\n"), 0o600))
	}
	policies, err := cedar.NewPolicySetFromBytes("a.cedar", []byte(texts.String()))
	check(err)
	check(os.WriteFile(filepath.Join(dir, "a.cedar"), []byte(texts.String()), 0o600))
	var out strings.Builder
	for n := range cases {
		text, all, request := question(r)
		decision, diagnostic := cedar.Authorize(policies, all, request)
		forbids := decision == types.Deny && len(diagnostic.Reasons) > 0
		allowed := len(diagnostic.Errors) == 0 && !forbids && (!deny || decision == types.Allow)
		answer := "deny"
		if allowed {
			answer = "allow"
		}
		fmt.Fprintf(&out, "[[tests]]\nname = \"%d-%d\"\n%sexpect = %q\n", seed, n, text, answer)
		if len(diagnostic.Errors) > 0 {
			fmt.Fprintf(&out, "policy = %q\n", strings.Replace(string(diagnostic.Errors[0].PolicyID), "policy", "p", 1))
		} else if len(diagnostic.Reasons) > 0 {
			fmt.Fprintf(&out, "policy = %q\n", strings.Replace(string(diagnostic.Reasons[0].PolicyID), "policy", "p", 1))
		}
	}
	check(os.WriteFile(filepath.Join(dir, "tests.toml"), []byte(out.String()), 0o600))
}
