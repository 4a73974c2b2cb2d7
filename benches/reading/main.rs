//! Reading beside an upgrade: how long `status` takes while others ask for `inspect` again and
//! again, what that does to the downtime of an upgrade, and what clients that do not read cost.
//!
//! ```text
//! cargo bench --bench reading -- [--rows 200000,1000000] [--rounds N] [--seconds N]
//! ```
//!
//! The make-believe engine (`sandbox`), the real daemon, a journal of so many rows. What is
//! compared is measured in turns on the same daemon: without and with the loops, round by round.
//! Figures are printed, nothing is asserted. Everything lies in `TMPDIR` and is removed.

#[path = "../downtime/poller.rs"]
mod poller;
#[path = "../../tests/support/mod.rs"]
mod support;

mod journal;
mod load;
mod memory;
mod shop;
mod table;

use std::time::{Duration, Instant};

use load::{Loops, Statuses};
use shop::Shop;

type Failure = Box<dyn std::error::Error>;

/// Clients that ask for `inspect` while `status` is polled, and while an upgrade runs.
const LOOPS: usize = 8;
const LOOPS_OF_UPGRADE: usize = 4;

/// Clients that ask for all of the history.
const CROWD: usize = 60;

struct Arguments {
    rows: Vec<usize>,
    rounds: u32,
    seconds: u64,
}

fn main() -> Result<(), Failure> {
    let given: Vec<String> = std::env::args().skip(1).collect();
    // `cargo test --benches` runs it too, and wants nothing measured.
    if !given.iter().any(|argument| argument == "--bench") {
        println!(
            "usage: cargo bench --bench reading -- [--rows 200000,1000000] [--rounds N] [--seconds N]"
        );
        return Ok(());
    }
    let arguments = Arguments::read(&given)?;
    for rows in &arguments.rows {
        measure(*rows, &arguments)?;
    }
    Ok(())
}

fn measure(rows: usize, arguments: &Arguments) -> Result<(), Failure> {
    let shop = Shop::open(arguments.rounds * 2 + 1);
    let bytes = journal::build(&shop.journal(), rows)?;
    println!("\n{rows} rows, {} MB", bytes / 1_000_000);
    let daemon = shop.daemon();
    let begin = Instant::now();
    let first = load::inspect(shop.port)?;
    println!("  the first inspect, {:.3} s: {first}", begin.elapsed().as_secs_f64());
    let whole = support::wait_until("the chain is walked", Duration::from_secs(600), || {
        load::inspect(shop.port).ok().filter(|message| message.contains("the chain holds ("))
    });
    println!("  after {:.1} s: {whole}", begin.elapsed().as_secs_f64());

    let (mut alone, mut beside) = (Statuses::default(), Statuses::default());
    let mut inspects = Statuses::default();
    for _ in 0..arguments.rounds {
        let time = Duration::from_secs(arguments.seconds);
        alone.poll(shop.port, time)?;
        let loops = Loops::start(shop.port, LOOPS);
        beside.poll(shop.port, time)?;
        inspects.add(loops.end()?);
    }
    table::latencies(LOOPS, &alone, &beside, &inspects);

    // Not counted: the first upgrade finds everything cold.
    shop.upgrade(&daemon)?;
    let (mut quiet, mut loud) = (Vec::new(), Vec::new());
    for _ in 0..arguments.rounds {
        quiet.push(shop.upgrade(&daemon)?);
        let loops = Loops::start(shop.port, LOOPS_OF_UPGRADE);
        loud.push(shop.upgrade(&daemon)?);
        loops.end()?;
    }
    table::downtimes(LOOPS_OF_UPGRADE, &quiet, &loud);

    let memory = memory::crowd(&shop, &daemon, CROWD)?;
    table::memory(CROWD, &memory);
    Ok(())
}

impl Arguments {
    fn read(given: &[String]) -> Result<Self, Failure> {
        let mut read = Self { rows: vec![200_000, 1_000_000], rounds: 5, seconds: 5 };
        let mut words = given.iter().filter(|word| *word != "--bench");
        while let Some(word) = words.next() {
            let value = words.next().ok_or(format!("{word} wants a value"))?;
            match word.as_str() {
                "--rows" => {
                    read.rows = value.split(',').map(str::parse).collect::<Result<_, _>>()?;
                }
                "--rounds" => read.rounds = value.parse()?,
                "--seconds" => read.seconds = value.parse()?,
                other => return Err(format!("{other:?} is not understood").into()),
            }
        }
        Ok(read)
    }
}
