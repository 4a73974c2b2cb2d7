//! One hand at a time: what a second command is told while the first one works.

use std::os::unix::process::ExitStatusExt as _;

use serde_json::Value;

use crate::journals::{Journal, Made, said};
use crate::place::{END, Place, SOON};
use crate::support::wait_until;

/// An upgrade whose new version waits to be verified, which takes seconds.
fn verifying() -> Made {
    let mut journals = crate::journals::all();
    journals.retain(|journal| journal.name == "Swapped");
    let journal: Journal = journals.pop().expect("there is one");
    let mut made = journal.make();
    made.put_back(None);
    made
}

/// Begins a recovery and waits until it is at work.
fn begin(place: &Place) -> std::process::Child {
    let before = place.rows();
    let first = place.begin(&["recover", "--yes", "--json"]);
    wait_until("the first one is at work", SOON, || (place.rows() > before).then_some(()));
    first
}

fn ends_well(first: std::process::Child) {
    let ended = first.wait_with_output().expect("it ends");
    assert_eq!(ended.status.code(), Some(0), "{:?} {}", ended.status.signal(), said(&ended));
    let answer: Value = serde_json::from_slice(&ended.stdout).expect("JSON");
    assert_eq!((&answer["success"], &answer["job"]["phase"]), (&true.into(), &"VERIFIED".into()));
}

#[test]
fn while_a_recovery_works_without_a_daemon_another_one_is_told_who_it_is() {
    let made = verifying();
    let place = &made.place;
    let first = begin(place);
    let second = place.cli(&["recover", "--yes", "--json"]);
    assert_eq!(second.status.code(), Some(1), "{}", said(&second));
    let answer: Value = serde_json::from_slice(&second.stdout).expect("JSON");
    assert_eq!(answer["code"], "STATE_LOCKED", "{answer}");
    let sentence = answer["error"].as_str().expect("a sentence");
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    for part in [&format!("pid {}, recover", first.id()), boot.trim(), "nothing was changed"] {
        assert!(sentence.contains(part), "{part:?} in {sentence}");
    }
    let daemon = place.cli(&["serve"]);
    assert_eq!(daemon.status.code(), Some(1), "{}", said(&daemon));
    assert!(said(&daemon).contains(&format!("pid {}", first.id())), "{}", said(&daemon));
    ends_well(first);
}

#[test]
fn while_the_daemon_works_on_a_recovery_another_one_is_told_to_wait() {
    let made = verifying();
    let place = &made.place;
    let daemon = place.daemon(&[("RESUME", "manual")]);
    let first = begin(place);
    let second = place.cli(&["recover", "--dry-run", "--json"]);
    let answer: Value = serde_json::from_slice(&second.stdout).expect("JSON");
    assert_eq!((second.status.code(), &answer["action"]), (Some(0), &"wait".into()), "{answer}");
    ends_well(first);
    assert_eq!(daemon.wait_settled(END)["phase"], "VERIFIED");
}
