//! Damage to a journal at rest: every changed bit and every missing row is noticed before anything is served.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod support;

use std::path::{Path, PathBuf};

use mayfly::home::Mark;
use mayfly::journal::record::{Configured, Record, record::Body};
use mayfly::journal::sqlite::Sqlite;
use mayfly::journal::{Journal as _, chain};
use prost::Message as _;
use rusqlite::Connection;
use support::Dev;

/// A record of some length.
fn record(n: u64) -> Vec<u8> {
    let body = Body::Configured(Configured { classes: vec![u8::try_from(n).unwrap(); 32], ..Configured::default() });
    Record { at: n, operator: "test".into(), body: Some(body) }.encode_to_vec()
}

/// Makes a journal of thirty records, of which retention drops some: alone, side by side, and at the beginning.
fn journal(path: &Path) -> Sqlite {
    let mut journal = Sqlite::open(path, None).unwrap();
    journal.append(1, &(1..=10).map(record).collect::<Vec<_>>(), &[]).unwrap();
    journal.append(11, &(11..=20).map(record).collect::<Vec<_>>(), &[4, 8, 7, 1]).unwrap();
    journal.append(21, &(21..=30).map(record).collect::<Vec<_>>(), &[6, 13, 14, 15, 2]).unwrap();
    journal
}

const LEFT: [i64; 21] = [3, 5, 9, 10, 11, 12, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30];

/// The revisions that can be replayed, or what is said instead.
fn replayed(path: &Path) -> Result<Vec<i64>, String> {
    let mut found = Vec::new();
    Sqlite::open(path, None)?.replay(&mut |revision, _| {
        found.push(i64::try_from(revision).unwrap());
        Ok(())
    })?;
    Ok(found)
}

/// A copy of a closed journal, changed by SQL.
fn changed(path: &Path, sql: &str) -> PathBuf {
    let copy = path.with_extension("changed");
    let _ = std::fs::remove_file(&copy);
    std::fs::copy(path, &copy).unwrap();
    let connection = Connection::open(&copy).unwrap();
    connection.pragma_update(None, "journal_mode", "DELETE").unwrap();
    connection.execute_batch(sql).unwrap();
    drop(connection);
    copy
}

fn closed() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal.db");
    journal(&path).close().unwrap();
    (dir, path)
}

#[test]
fn retention_drops_rows_one_by_one_and_the_chain_holds() {
    let (_dir, path) = closed();
    assert_eq!(replayed(&path).unwrap(), LEFT);
    let mut expected = chain::BEGIN;
    for n in 1..=30 {
        expected = chain::link(&expected, n, &record(n));
    }
    let mut journal = Sqlite::open(&path, None).unwrap();
    assert_eq!(journal.head(), Some((30, expected)), "as if nothing had been dropped");
    // A piece from the middle is checked too, and a restore drops everything below.
    assert_eq!(journal.read(10, 3).unwrap().iter().map(|(revision, _)| *revision).collect::<Vec<_>>(), [10, 11, 12]);
    for first in [17, 25] {
        journal.drop_below(first).unwrap();
        let mut count = 0;
        journal
            .replay(&mut |_, _| {
                count += 1;
                Ok(())
            })
            .unwrap();
        assert_eq!(count, 31 - first);
    }
    assert_eq!(journal.head(), Some((30, expected)));
}

#[test]
fn t138_each_missing_row_is_missed() {
    let (_dir, path) = closed();
    for revision in LEFT.into_iter().filter(|revision| *revision != 30) {
        let copy = changed(&path, &format!("DELETE FROM record WHERE revision = {revision}"));
        let said = replayed(&copy).unwrap_err();
        assert!(said.contains(&format!("the row of revision {revision} is missing")), "{revision}: {said}");
    }
    let copy = changed(&path, "DELETE FROM record WHERE revision BETWEEN 17 AND 22");
    assert!(replayed(&copy).unwrap_err().contains("the row of revision 22 is missing"));
    let copy = changed(&path, "UPDATE record SET revision = 15 WHERE revision = 16");
    assert!(replayed(&copy).unwrap_err().contains("revision 15"));
}

#[test]
fn t138_each_flipped_bit_is_found_in_its_row() {
    let (_dir, path) = closed();
    let connection = Connection::open(&path).unwrap();
    for revision in [3, 5, 10, 16, 21, 29, 30] {
        for column in ["body", "chain", "before"] {
            let select = format!("SELECT {column} FROM record WHERE revision = {revision}");
            let Some(bytes) = connection.query_row(&select, [], |row| row.get::<_, Option<Vec<u8>>>(0)).unwrap() else {
                continue;
            };
            for at in [0, bytes.len() / 2, bytes.len() - 1] {
                let mut bytes = bytes.clone();
                bytes[at] ^= 1 << (at % 8);
                let hex = hex::encode(bytes);
                let copy = changed(&path, &format!("UPDATE record SET {column} = x'{hex}' WHERE revision = {revision}"));
                let said = replayed(&copy).unwrap_err();
                assert!(said.contains(&format!("the row of revision {revision} was changed")), "{revision} {column}: {said}");
                let revision = u64::try_from(revision).unwrap();
                assert!(Sqlite::open(&copy, None).unwrap().read(revision, 1).is_err(), "and read alone");
            }
        }
        let copy = changed(
            &path,
            &format!("UPDATE record SET prev = prev ^ 1, body = body WHERE revision = {revision}")
                .replace("prev ^ 1", "prev + 1"),
        );
        assert!(replayed(&copy).is_err(), "{revision}");
    }
}

#[test]
fn an_earlier_journal_is_adopted_with_its_gaps_and_guarded_from_then_on() {
    let (_dir, path) = closed();
    let earlier = changed(
        &path,
        "ALTER TABLE record DROP COLUMN chain; ALTER TABLE record DROP COLUMN prev; ALTER TABLE record DROP COLUMN before;
         PRAGMA user_version = 1;",
    );
    assert_eq!(replayed(&earlier).unwrap(), LEFT);
    assert_eq!(replayed(&earlier).unwrap(), LEFT, "and again");
    let mut journal = Sqlite::open(&earlier, None).unwrap();
    journal.append(31, &[record(31)], &[12, 30, 3]).unwrap();
    journal.close().unwrap();
    assert_eq!(replayed(&earlier).unwrap().len(), LEFT.len() - 2);
    let damaged = earlier.with_extension("damaged");
    std::fs::copy(&earlier, &damaged).unwrap();
    let connection = Connection::open(&damaged).unwrap();
    connection.pragma_update(None, "journal_mode", "DELETE").unwrap();
    connection.execute_batch("DELETE FROM record WHERE revision = 20").unwrap();
    drop(connection);
    assert!(replayed(&damaged).unwrap_err().contains("the row of revision 20 is missing"));
}

#[test]
fn t139_another_journal_of_the_same_length_is_a_fork_and_a_shorter_one_is_old() {
    let (dir, path) = closed();
    let mut journal = Sqlite::open(&path, None).unwrap();
    let state = mayfly::ledger::replay(&mut journal).unwrap();
    for head in [16, 25, 30] {
        let mark = |head, chain| Mark { incarnation: state.incarnation, head, as_of: 0, chain };
        let signed = journal.chain_at(head).unwrap();
        assert!(signed.is_some());
        assert_eq!(mark(head, signed).check(&journal, &state), Ok(()));
        assert_eq!(mark(head, None).check(&journal, &state), Ok(()), "an earlier version signed no chain");
        let other = dir.path().join(format!("other-{head}.db"));
        let mut other = Sqlite::open(&other, None).unwrap();
        // Another record in the past, and more records than before.
        other.append(1, &(1..=35).map(|n| record(if n == 12 { 13 } else { n })).collect::<Vec<_>>(), &[]).unwrap();
        let said = mark(head, signed).check(&other, &state).unwrap_err();
        assert!(said.starts_with("fork"), "{said}");
    }
    let ahead = Mark { incarnation: state.incarnation, head: 31, as_of: 0, chain: None };
    assert!(ahead.check(&journal, &state).unwrap_err().contains("an older copy"));
}

/// A whole issuer: an agent is revoked, and the row of its revocation is damaged while the issuer is stopped.
#[test]
fn t138_a_damaged_revocation_stops_the_start_and_is_named() {
    let dev = Dev::start();
    dev.token("demo", "demo.jwt");
    let agent = dev.json("spawn --class researcher --user-token demo.jwt --out a1");
    let revoked = dev.json(&format!("revoke --agent {}", agent["agent_id"].as_str().unwrap()));
    let revision = revoked["revision"].as_u64().unwrap();
    dev.run("spawn --class researcher --user-token demo.jwt --out a2");
    let dir = dev.kill();
    let path = dir.path().join(".mayfly/journal.db");
    let check = || {
        let output = support::run_in(dir.path(), "journal check");
        (output.status.code(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
    };
    let (status, said) = check();
    assert!(status == Some(0) && said.starts_with("ok: "), "{said}");
    let mut body: Vec<u8> = Connection::open(&path)
        .unwrap()
        .query_row(&format!("SELECT body FROM record WHERE revision = {revision}"), [], |row| row.get(0))
        .unwrap();
    let middle = body.len() / 2;
    body[middle] ^= 1;
    for sql in [
        format!("UPDATE record SET body = x'{}' WHERE revision = {revision}", hex::encode(body)),
        format!("DELETE FROM record WHERE revision = {revision}"),
    ] {
        Connection::open(&path).unwrap().execute_batch(&sql).unwrap();
        for line in ["journal check", "dev"] {
            let output = support::run_in(dir.path(), line);
            let said = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(1), "{line}: {said}");
            assert!(
                said.contains(&format!("the row of revision {revision}")) && said.contains("backup restore"),
                "{line}: {said}"
            );
        }
    }
}
