//! Circles between files, and where the arrows between rooms point.

use std::collections::{BTreeMap, BTreeSet};

use crate::arrows::{Arrows, Module};
use crate::texts;

/// Groups of files inside of one room that use one another: none is added. Each is a sentence of
/// why it is there.
const CIRCLES: [(&str, &str); 2] = [
    ("driver::recovery::look driver::recovery::neighbours", "both read one inspection"),
    ("machine::rollback machine::state", "a way back holds the state that it began in"),
];

fn name(module: &Module) -> String {
    module.join("::")
}

#[test]
fn no_files_use_one_another_in_a_circle() {
    let arrows = Arrows::read();
    let known: BTreeSet<&str> = CIRCLES.iter().map(|(files, _)| *files).collect();
    let mut found = Vec::new();
    for circle in arrows.circles() {
        let names: Vec<String> = circle.iter().map(name).collect();
        if known.contains(names.join(" ").as_str()) {
            continue;
        }
        found.push(names.join(" "));
        for from in &circle {
            let to = arrows.arrows.get(from).into_iter().flatten();
            for (to, items) in to.filter(|(to, _)| circle.contains(*to)) {
                found.push(format!("    {} -> {} for {items:?}", name(from), name(to)));
            }
        }
    }
    let count: usize = arrows.arrows.values().map(BTreeMap::len).sum();
    println!("{count} arrows between files, {} known circles", known.len());
    assert!(count > 500, "only {count} arrows were found");
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn the_arrows_between_rooms_point_one_way() {
    let rooms = Arrows::read().rooms();
    // A room is on the floor above the highest of those that it uses.
    let mut floors: BTreeMap<&str, usize> = BTreeMap::new();
    while floors.len() < rooms.len() {
        let ready: Vec<(&str, usize)> = rooms
            .iter()
            .filter(|(room, others)| {
                !floors.contains_key(room.as_str())
                    && others.iter().all(|other| floors.contains_key(other.as_str()))
            })
            .map(|(room, others)| {
                let below = others.iter().map(|other| floors[other.as_str()] + 1).max();
                (room.as_str(), below.unwrap_or(0))
            })
            .collect();
        let left: Vec<&String> =
            rooms.keys().filter(|room| !floors.contains_key(room.as_str())).collect();
        assert!(!ready.is_empty(), "these rooms use one another in a circle: {left:?}");
        floors.extend(ready);
    }
    for floor in (0..=floors.values().copied().max().unwrap_or_default()).rev() {
        let here: Vec<&str> =
            floors.iter().filter(|(_, at)| **at == floor).map(|(room, _)| *room).collect();
        println!("{floor}  {}", here.join(" "));
    }
}

#[test]
fn no_room_uses_what_it_should_not_know() {
    let rooms = Arrows::read().rooms();
    let uses = |room: &str, other: &str| rooms.get(room).is_some_and(|it| it.contains(other));
    let users = |room: &str| -> Vec<&str> {
        rooms.keys().map(String::as_str).filter(|other| uses(other, room)).collect()
    };
    let within = |room: &str, allowed: &[&str]| {
        let users = users(room);
        assert!(users.iter().all(|it| allowed.contains(it)), "{room} is used by {users:?}");
    };
    assert_eq!(rooms["machine"], BTreeSet::new(), "the machine uses nothing of ours");
    within("cli", &["main"]);
    within("api", &["cli", "main"]);
    within("sandbox", &["cli"]);
    within("inspect", &["cli", "api"]);
    within("auto_update", &["cli", "api", "inspect"]);
    within("notify", &["cli", "inspect"]);
    within("driver", &["cli", "api", "inspect", "auto_update", "notify"]);
    for (room, stranger) in [("journal", "engine"), ("journal", "plan"), ("engine", "plan")] {
        assert!(!uses(room, stranger), "{room} uses {stranger}");
    }
}

#[test]
fn what_is_pure_waits_for_nothing_and_asks_nobody() {
    let mut checked = 0;
    for file in texts(&["src/machine", "src/restore", "src/rehearsal"], &[".rs"]) {
        let product = file.text.split("#[cfg(test)]").next().unwrap_or_default();
        let strangers =
            ["async fn", ".await", "tokio::", "rusqlite", "reqwest", "std::fs", "std::env"];
        for stranger in strangers {
            assert!(!product.contains(stranger), "{} has {stranger}", file.path);
        }
        checked += 1;
    }
    assert!(checked > 8, "{checked} files");
}
