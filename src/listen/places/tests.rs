#![expect(clippy::unwrap_used, reason = "tests")]

use super::*;

fn network(n: u8) -> IpAddr {
    IpAddr::from([10, 0, 0, n])
}

fn places() -> Places {
    Places::new(Shares { total: 8, strangers: 4, network: 2, identity: 5, handshakes: 6 }, Some("test"))
}

/// A stranger that has sent nothing.
fn stranger(places: &Places, n: u8) -> Seat {
    let seat = places.begin(network(n));
    assert!(seat.stranger().is_ok());
    seat
}

/// A peer whose identity is at the root of its own tree.
fn certified(places: &Places, id: &str) -> Result<Seat, Full> {
    certified_below(places, id, id)
}

fn certified_below(places: &Places, id: &str, root: &str) -> Result<Seat, Full> {
    let seat = places.begin(network(9));
    seat.certified(&Known { id: id.into(), root: root.into() }).map(|()| seat)
}

async fn ended(seats: &[&Seat]) -> Vec<bool> {
    let mut ended = Vec::new();
    for seat in seats {
        ended.push(tokio::time::timeout(std::time::Duration::from_millis(5), seat.activity.ended()).await.is_ok());
    }
    ended
}

fn counts(places: &Places) -> (usize, usize, usize) {
    let table = places.0.table.lock();
    (table.all(Kind::Handshake), table.all(Kind::Stranger), table.all(Kind::Certified))
}

#[tokio::test]
async fn t95_the_idlest_stranger_gives_its_place_to_a_new_one() {
    let places = places();
    let (a, b, c, d) = (stranger(&places, 1), stranger(&places, 2), stranger(&places, 3), stranger(&places, 4));
    // The oldest connection is in use, and the second was used just now.
    let _open = a.activity.begin(false);
    std::thread::sleep(std::time::Duration::from_millis(2));
    drop(b.activity.begin(false));
    let e = stranger(&places, 5);
    assert_eq!(ended(&[&a, &b, &c, &d, &e]).await, [false, false, true, false, false]);
    assert_eq!(counts(&places), (0, 4, 0));
    drop((a, b, c, d, e));
    let table = places.0.table.lock();
    assert!(table.seats.is_empty() && table.kinds.is_empty() && table.networks.is_empty());
}

#[tokio::test]
async fn t95_a_network_takes_places_from_itself_first() {
    let places = places();
    let other = stranger(&places, 2);
    let (a, b) = (stranger(&places, 1), stranger(&places, 1));
    let c = stranger(&places, 1);
    assert_eq!(ended(&[&other, &a, &b, &c]).await, [false, true, false, false]);
}

#[tokio::test]
async fn t95_handshakes_have_places_of_their_own_and_the_oldest_ends() {
    let places = places();
    let begin = |n| places.begin(network(n));
    let _strangers: Vec<_> = (0..4).map(|n| stranger(&places, n)).collect();
    // A network at its limit, which is half of all, replaces its own connections.
    let (a, b, c) = (begin(1), begin(1), begin(1));
    let d = begin(1);
    assert_eq!(ended(&[&a, &b, &c, &d]).await, [true, false, false, false]);
    let _others: Vec<_> = (2..5).map(begin).collect();
    let last = begin(5);
    assert_eq!(ended(&[&b, &c, &d, &last]).await, [true, false, false, false]);
    assert_eq!(counts(&places), (6, 4, 0));
}

#[tokio::test]
async fn t95_who_has_an_identity_takes_the_place_of_a_stranger_and_never_the_other_way_round() {
    let places = places();
    let strangers: Vec<_> = (1..5).map(|n| stranger(&places, n)).collect();
    let mut seats: Vec<_> = (0..4).map(|_| certified(&places, "a")).collect();
    assert_eq!(counts(&places), (0, 4, 4));
    seats.extend((0..4).map(|_| certified(&places, "b")));
    assert!(seats.iter().all(Result::is_ok));
    assert_eq!(counts(&places), (0, 0, 8));
    assert_eq!(ended(&strangers.iter().collect::<Vec<_>>()).await, [true; 4]);
    assert_eq!(places.begin(network(1)).stranger(), Err(Full::All));
    assert_eq!(counts(&places), (0, 0, 8));
}

#[tokio::test]
async fn t95_a_tree_of_identities_makes_room_for_whoever_has_less() {
    let places = places();
    let swarm: Vec<_> =
        (0..8).map(|n| certified_below(&places, &format!("agent-{}", n / 2), "greedy")).collect::<Result<_, _>>().unwrap();
    let modest: Vec<_> = (0..3).map(|_| certified(&places, "modest")).collect::<Result<_, _>>().unwrap();
    let ends = ended(&swarm.iter().collect::<Vec<_>>()).await;
    assert_eq!(ends.iter().filter(|ended| **ended).count(), 3, "the swarm makes room");
    assert_eq!(ended(&modest.iter().collect::<Vec<_>>()).await, [false; 3]);
    assert_eq!(counts(&places), (0, 0, 8));
    assert_eq!(certified_below(&places, "agent-9", "greedy").err(), Some(Full::All), "and gets nothing back while it has most");
    // If all roots have equally many, no connection is ended for another.
    let _fourth = certified(&places, "modest").unwrap();
    assert_eq!(certified(&places, "modest").err(), Some(Full::All));
}

#[test]
fn t95_one_identity_has_a_share() {
    let places = places();
    let mut seats: Vec<_> = (0..5).map(|_| certified(&places, "a")).collect();
    assert!(seats.iter().all(Result::is_ok));
    assert_eq!(certified(&places, "a").err(), Some(Full::Identity));
    assert!(certified(&places, "b").is_ok());
    seats.pop();
    assert!(certified(&places, "a").is_ok());
}

#[test]
fn places_fit_into_the_files_of_the_process() {
    for files in [0, 64, 256, 1024, 4096, 20_000, 1 << 20] {
        let shares = Shares::of(&Bounds::default(), files);
        let all = shares.files() + OPERATORS + MONITORS + BUNDLE + HTTPS + OTHER_FILES;
        assert!(all <= files || shares.total == 4, "{files}: {shares:?}");
        assert!(shares.strangers * 4 <= shares.total.max(4) && shares.network <= shares.strangers, "{shares:?}");
    }
    assert_eq!(Shares::of(&Bounds::default(), 1 << 20).total, 16_384);
    let few = Bounds { connections: 100, per_address: Some(7), per_identity: Some(9), ..Bounds::default() };
    let shares = Shares::of(&few, 1 << 20);
    assert_eq!((shares.total, shares.strangers, shares.network, shares.identity), (100, 25, 7, 9));
}
