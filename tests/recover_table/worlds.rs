//! What may have become of the world since the journal was written: by a reboot, by an operator
//! who helped himself, by accident. Each is made by hand, through the engine.

use std::fs;

use serde_json::{Value, json};

use crate::journals::{Made, remove_copies};
use crate::place::{Container, Place};

/// A world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum World {
    AsLeft,
    OldRuns,
    OldStopped,
    OldMissing,
    NextServes,
    NextSilent,
    NextMissing,
    BothRun,
    BothMissing,
    NameTaken,
    OldUnderItsName,
    StartedByHand,
    EngineGone,
    CopyMissing,
    FailedPresent,
}

/// All of them.
pub const ALL: [World; 15] = [
    World::AsLeft,
    World::OldRuns,
    World::OldStopped,
    World::OldMissing,
    World::NextServes,
    World::NextSilent,
    World::NextMissing,
    World::BothRun,
    World::BothMissing,
    World::NameTaken,
    World::OldUnderItsName,
    World::StartedByHand,
    World::EngineGone,
    World::CopyMissing,
    World::FailedPresent,
];

/// Why there is no such world with this journal.
pub struct Impossible(pub String);

fn impossible<T>(why: impl Into<String>) -> Result<T, Impossible> {
    Err(Impossible(why.into()))
}

const AS_LEFT: &str = "that is how the journal left it";
const NO_NEXT: &str = "there is no new container";
const NO_OLD: &str = "the old container was removed when it was tidied";

impl World {
    pub fn name(self) -> &'static str {
        match self {
            World::AsLeft => "as the journal left it",
            World::OldRuns => "old runs",
            World::OldStopped => "old stopped",
            World::OldMissing => "old missing",
            World::NextServes => "new runs and is healthy",
            World::NextSilent => "new runs, does not answer",
            World::NextMissing => "new missing",
            World::BothRun => "both run",
            World::BothMissing => "both missing",
            World::NameTaken => "name taken by a stranger",
            World::OldUnderItsName => "old put back by hand",
            World::StartedByHand => "operator's own container",
            World::EngineGone => "engine unreachable",
            World::CopyMissing => "copy missing",
            World::FailedPresent => "failed directory present",
        }
    }

    /// What 2.0.0 does in this world; none when it does what it did.
    pub fn release(self) -> Option<Value> {
        match self {
            World::NextServes => Some(json!({"takesPayments": true})),
            World::NextSilent => Some(json!({"bootMs": 3_600_000, "takesPayments": false})),
            World::AsLeft
            | World::OldRuns
            | World::OldStopped
            | World::OldMissing
            | World::NextMissing
            | World::BothRun
            | World::BothMissing
            | World::NameTaken
            | World::OldUnderItsName
            | World::StartedByHand
            | World::EngineGone
            | World::CopyMissing
            | World::FailedPresent => None,
        }
    }

    /// Makes it of a place that was put back.
    pub fn make(self, made: &mut Made) -> Result<(), Impossible> {
        let old = made.place.container(&made.old);
        let next = made.next.as_deref().and_then(|next| made.place.container(next));
        match self {
            World::AsLeft => {}
            World::OldRuns => {
                let Some(old) = old else { return impossible(NO_OLD) };
                if old.runs() {
                    return impossible(AS_LEFT);
                }
                stop(&made.place, next.as_ref());
                start(&made.place, &old, true)?;
            }
            World::OldStopped => {
                let Some(old) = old else { return impossible(NO_OLD) };
                if !old.runs() {
                    return impossible(AS_LEFT);
                }
                made.place.stop(&old.id);
            }
            World::OldMissing => {
                let Some(old) = old else { return impossible(AS_LEFT) };
                made.place.remove(&old.id);
            }
            World::NextServes | World::NextSilent => {
                let Some(next) = next else { return impossible(NO_NEXT) };
                let serves = self == World::NextServes;
                stop(&made.place, old.as_ref());
                start(&made.place, &next, serves)?;
            }
            World::NextMissing => {
                let Some(next) = next else { return impossible(NO_NEXT) };
                made.place.remove(&next.id);
            }
            World::BothRun => {
                let (Some(old), Some(next)) = (old, next) else {
                    return impossible("there is only one of the two");
                };
                // Tried, and seen to fail.
                let (up, other) = if next.runs() { (&next, &old) } else { (&old, &next) };
                if !up.runs() {
                    start(&made.place, up, false)?;
                }
                return match made.place.start(&other.id) {
                    Err(refused) => impossible(format!("the engine refuses: {}", brief(&refused))),
                    Ok(()) => panic!("both run on one port"),
                };
            }
            World::BothMissing => {
                let Some(next) = next else { return impossible(NO_NEXT) };
                let Some(old) = old else { return impossible(NO_OLD) };
                made.place.remove(&next.id);
                made.place.remove(&old.id);
            }
            World::NameTaken => {
                free_the_name(&made.place, "payram-aside");
                let image = made
                    .place
                    .inspect(&made.old)
                    .or_else(|| made.next.as_deref().and_then(|next| made.place.inspect(next)));
                let image = image.expect("one of the two")["Image"].clone();
                let body = json!({"Image": image});
                let id = create(&made.place, "payram", &body);
                made.place.start(&id).expect("the stranger starts");
            }
            World::OldUnderItsName => {
                let Some(old) = old else { return impossible(NO_OLD) };
                if old.runs() && old.name == "payram" {
                    return impossible(AS_LEFT);
                }
                stop(&made.place, next.as_ref());
                if old.name != "payram" {
                    free_the_name(&made.place, "payram-failed");
                    made.place.rename(&old.id, "payram");
                }
                start(&made.place, &old, true)?;
            }
            World::StartedByHand => {
                stop(&made.place, next.as_ref());
                stop(&made.place, old.as_ref());
                free_the_name(&made.place, "payram-aside");
                let one = old.or(next).expect("one of the two");
                let seen = made.place.inspect(&one.id).expect("it is there");
                let body = json!({
                    "Image": seen["Image"],
                    "Env": seen["Config"]["Env"],
                    "HostConfig": {
                        "Binds": seen["HostConfig"]["Binds"],
                        "PortBindings": seen["HostConfig"]["PortBindings"],
                    },
                });
                let id = create(&made.place, "payram", &body);
                let own = made.place.container(&id).expect("it was made");
                start(&made.place, &own, true)?;
            }
            World::EngineGone => made.place.stop_engine(),
            World::CopyMissing => {
                if !remove_copies(&made.place) {
                    return impossible("there is no copy");
                }
            }
            World::FailedPresent => {
                let Some(job) = job(&made.place) else { return impossible("there is no job") };
                let beside = made.place.beside_the_database();
                if beside.iter().any(|name| name.contains(".failed-")) {
                    return impossible(AS_LEFT);
                }
                let short = &job[job.len() - 8..];
                let failed = made.place.data().with_file_name(format!("postgres.failed-{short}-1"));
                fs::create_dir(&failed).expect("a directory");
                fs::write(failed.join("kept"), "by somebody").expect("a file");
            }
        }
        Ok(())
    }
}

fn stop(place: &Place, container: Option<&Container>) {
    if let Some(container) = container {
        place.stop(&container.id);
    }
}

/// Starts it by hand, and waits until it answers where it comes to that.
fn start(place: &Place, container: &Container, answers: bool) -> Result<(), Impossible> {
    if let Err(refused) = place.start(&container.id) {
        return impossible(format!("the engine refuses: {}", brief(&refused)));
    }
    if answers {
        place.wait_serves(&container.id);
    }
    Ok(())
}

/// Whoever has the shop's name gets another one.
fn free_the_name(place: &Place, to: &str) {
    if let Some(holder) = place.container("payram") {
        place.rename(&holder.id, to);
    }
}

fn create(place: &Place, name: &str, body: &Value) -> String {
    let made = place.tell(&format!("/containers/create?name={name}"), body).expect("created");
    made["Id"].as_str().expect("an id").to_owned()
}

fn job(place: &Place) -> Option<String> {
    let sql = "SELECT id FROM jobs ORDER BY rowid DESC LIMIT 1";
    place.journal()?.query_row(sql, [], |row| row.get(0)).ok()
}

fn brief(refused: &str) -> String {
    refused.split(" (").next().unwrap_or_default().chars().take(90).collect()
}
