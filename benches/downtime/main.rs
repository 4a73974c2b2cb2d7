//! The downtime of a good upgrade beside that of a bare stop and start by hand, for databases
//! of several sizes (design section 7), and where it goes.
//!
//! ```text
//! cargo bench --bench downtime -- [--sizes 10M,1G,5G] [--rounds N] [--backup-proof off|toc|full]
//! ```
//!
//! Real Docker, the stand-in's images, its PostgreSQL with the data on a bind mount, its writer
//! (a payment every 50 ms). In each round, one after the other on the same database: the bare
//! one, there and back again, and the daemon's. Both are measured from outside by one poller;
//! the daemon's own figure and its steps come from its journal. Figures are printed, nothing is
//! asserted. Everything lies in `TMPDIR` and needs about four times the largest size there; it
//! is removed at the end, and when interrupted.

#[path = "../../tests/support/mod.rs"]
mod support;

mod clean;
mod fill;
mod poller;
mod report;
mod swap;

use std::time::Duration;

use poller::Poller;
use support::{Fixture, World};

type Failure = Box<dyn std::error::Error>;

const MB: u64 = 1_000_000;

/// The version that serves, and the one that takes over.
const FROM: &str = "1.9.6";
const TO: &str = "1.9.7";

/// Of a swap that comes to nothing.
const HEALTHY_LIMIT: Duration = Duration::from_secs(180);

struct Arguments {
    sizes: Vec<u64>,
    rounds: u32,
    backup_proof: String,
}

fn main() -> Result<(), Failure> {
    let given: Vec<String> = std::env::args().skip(1).collect();
    // `cargo test --benches` runs it too, and wants nothing measured.
    if !given.iter().any(|argument| argument == "--bench") {
        println!(
            "usage: cargo bench --bench downtime -- [--sizes 10M,1G,5G] [--rounds N] [--backup-proof off|toc|full]"
        );
        return Ok(());
    }
    let arguments = Arguments::read(&given)?;
    Fixture::there()?;
    println!(
        "{FROM} to {TO}, {} rounds, BACKUP_PROOF={}; seconds, medians; the backup is made before the downtime and is no part of it",
        arguments.rounds, arguments.backup_proof
    );
    let mut results = Vec::new();
    for size in &arguments.sizes {
        let result = measure(*size, &arguments)?;
        report::details(&result);
        results.push(result);
    }
    report::table(&results);
    Ok(())
}

/// What was measured at one size.
pub struct Measured {
    pub size: u64,
    pub database_bytes: u64,
    pub bare: Vec<swap::Bare>,
    pub back: Vec<swap::Bare>,
    pub upgrades: Vec<swap::Upgrade>,
    pub acked: usize,
    pub lost: usize,
}

fn measure(size: u64, arguments: &Arguments) -> Result<Measured, Failure> {
    let world = World::build(FROM)
        .setting("BACKUP_PROOF", &arguments.backup_proof)
        .setting("BACKUP_TIMEOUT_SECONDS", "7200")
        .setting("BACKUP_RETENTION", "1")
        .start();
    let guard = clean::on_interrupt(&world);
    // It asks the engine ten times a second, which is not to be measured.
    drop(world.two_at_once());
    world.docker(&["pull", "--quiet", &Fixture::get().image(TO)]);
    let database_bytes = fill::to_size(&world, size)?;
    let poller = Poller::start(world.port);
    // Not counted: it migrates the schema, which an older version runs on.
    swap::there_and_back(&world, &poller)?;
    let daemon = world.daemon();
    guard.also_end(daemon.pid());
    let mut measured = Measured {
        size,
        database_bytes,
        bare: Vec::new(),
        back: Vec::new(),
        upgrades: Vec::new(),
        acked: 0,
        lost: 0,
    };
    for round in 1..=arguments.rounds {
        fill::settle(&world);
        let (there, back) = swap::there_and_back(&world, &poller)?;
        fill::settle(&world);
        let upgrade = swap::by_daemon(&world, &daemon, &poller)?;
        eprintln!(
            "{} MB, round {round}: bare {:.2} s, back {:.2} s, upgrade {:.2} s",
            size / MB,
            there.downtime.as_secs_f64(),
            back.downtime.as_secs_f64(),
            upgrade.downtime.as_secs_f64()
        );
        measured.bare.push(there);
        measured.back.push(back);
        measured.upgrades.push(upgrade);
        world.replace_by_hand(FROM);
        swap::wait_for_version(&world, FROM);
    }
    (measured.acked, measured.lost) = fill::lost(&world);
    drop(daemon);
    drop(poller);
    drop(world);
    Ok(measured)
}

impl Arguments {
    fn read(given: &[String]) -> Result<Self, Failure> {
        let mut read = Self {
            sizes: vec![10 * MB, 1000 * MB, 5000 * MB],
            rounds: 3,
            backup_proof: "off".to_owned(),
        };
        let mut words = given.iter().filter(|word| *word != "--bench");
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or(format!("{word} wants a value"));
            match word.as_str() {
                "--sizes" => {
                    read.sizes = value()?.split(',').map(bytes).collect::<Result<_, _>>()?;
                }
                "--rounds" => read.rounds = value()?.parse()?,
                "--backup-proof" => read.backup_proof.clone_from(value()?),
                other => return Err(format!("{other:?} is not understood").into()),
            }
        }
        Ok(read)
    }
}

/// `10M` or `5G`.
fn bytes(text: &str) -> Result<u64, Failure> {
    let wrong = || format!("{text:?} is no size; 10M or 1G is one");
    let upper = text.to_ascii_uppercase();
    let (number, unit) = match (upper.strip_suffix('G'), upper.strip_suffix('M')) {
        (Some(number), _) => (number, 1000 * MB),
        (None, Some(number)) => (number, MB),
        (None, None) => return Err(wrong().into()),
    };
    let number: u64 = number.parse().map_err(|_| wrong())?;
    number.checked_mul(unit).ok_or_else(|| wrong().into())
}
