//! What a restore point costs while the application serves and while it is down, for databases
//! of several sizes to which the same was written, beside `cp -a` of the same directory.
//!
//! `cargo bench --bench restore_point -- 10MB 1GB` (these are the defaults). The directories
//! are made up, laid out as PostgreSQL lays out its own; they lie in `TMPDIR`, and three times
//! the size is needed. Figures are printed, nothing is asserted.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use payram_updater::restore_point::{Cancel, Strategy, discard, finish, pre_copy, verify};

type Failure = Box<dyn std::error::Error>;

const MB: u64 = 1_000_000;
/// A new cluster of PostgreSQL 15 has about so many files, of about this size.
const CATALOG_FILES: u64 = 300;
const CATALOG_FILE_BYTES: u64 = 24 * 1024;
const SEGMENT_BYTES: u64 = 1 << 30;
const WAL_BYTES: u64 = 16 << 20;
const PAGE_BYTES: u64 = 8192;
/// Written between the passes, whatever the size: as many payments as a minute may bring.
const PAGES_CHANGED: u64 = 200;

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let is_bench = arguments.iter().any(|argument| argument == "--bench");
    let mut sizes = Vec::new();
    for argument in arguments.iter().filter(|argument| !argument.starts_with('-')) {
        sizes.push(bytes(argument)?);
    }
    if sizes.is_empty() && is_bench {
        sizes = vec![10 * MB, 1000 * MB];
    }
    if sizes.is_empty() {
        println!("usage: restore_point SIZE... (10MB, 1GB)");
        return Ok(());
    }
    println!(
        "{:>9} | {:>10} {:>10} {:>10} | {:>9} {:>9} {:>9} {:>9} | {:>11}",
        "database",
        "before",
        "downtime",
        "compared",
        "1st pass",
        "2nd pass",
        "verify",
        "cp -a",
        "2nd ÷ cp -a"
    );
    for size in sizes {
        measure(size)?;
    }
    Ok(())
}

fn measure(size: u64) -> Result<(), Failure> {
    let place = tempfile::tempdir()?;
    let source = place.path().join("data");
    let copy = place.path().join(".data.payram-restore-bench");
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    make(&source, size, &mut random)?;
    sync(place.path())?;
    // As nearly all of a database does when an upgrade comes.
    rest();

    let plain = place.path().join("plain");
    let began = Instant::now();
    run(Command::new("cp").arg("-a").arg(&source).arg(&plain))?;
    sync(place.path())?;
    let by_hand = began.elapsed();
    fs::remove_dir_all(&plain)?;
    sync(place.path())?;

    let never = Cancel::default();
    let first = pre_copy(&source, &copy, &mut |_| {}, &never)?;
    change(&source, &mut random)?;
    let second = finish(&source, &copy, &mut |_| {}, &never)?;
    let began = Instant::now();
    verify(&copy, Some(&second.manifest_sha256), &mut |_| {}, &never)?;
    let verified = began.elapsed();
    discard(&copy)?;
    let how = match first.strategy {
        Strategy::Reflink => "shared",
        Strategy::Copy => "copied",
    };
    println!(
        "{:>6} MB | {:>7.1} MB {:>7.1} MB {:>7.1} MB | {:>7.3} s {:>7.3} s {:>7.3} s {:>7.3} s | {:>11.3}  ({how})",
        size / MB,
        megabytes(first.bytes_copied + first.bytes_shared),
        megabytes(second.bytes_copied + second.bytes_shared),
        megabytes(second.bytes_compared),
        first.took.as_secs_f64(),
        second.took.as_secs_f64(),
        verified.as_secs_f64(),
        by_hand.as_secs_f64(),
        second.took.as_secs_f64() / by_hand.as_secs_f64(),
    );
    Ok(())
}

fn make(source: &Path, size: u64, random: &mut Random) -> Result<(), Failure> {
    for directory in ["base/1", "global", "pg_wal"] {
        fs::create_dir_all(source.join(directory))?;
    }
    fs::write(source.join("PG_VERSION"), "15\n")?;
    fill(&source.join("global/pg_control"), PAGE_BYTES, random)?;
    for number in 0..CATALOG_FILES {
        fill(&source.join(format!("base/1/{}", 1000 + number)), CATALOG_FILE_BYTES, random)?;
    }
    let mut left = size.saturating_sub(CATALOG_FILES * CATALOG_FILE_BYTES);
    let mut segment = 0;
    while left > 0 {
        let part = left.min(SEGMENT_BYTES);
        fill(&source.join(format!("base/1/16384.{segment}")), part, random)?;
        (left, segment) = (left - part, segment + 1);
    }
    fill(&source.join("pg_wal/000000010000000000000001"), WAL_BYTES, random)
}

/// What a minute of payments and a shutdown write.
fn change(source: &Path, random: &mut Random) -> Result<(), Failure> {
    let mut segments = Vec::new();
    for entry in fs::read_dir(source.join("base/1"))? {
        let path = entry?.path();
        if path.extension().is_some() {
            let file = File::options().write(true).open(&path)?;
            segments.push((file.metadata()?.len() / PAGE_BYTES, file));
        }
    }
    let page = vec![7; PAGE_BYTES as usize];
    for _ in 0..PAGES_CHANGED {
        let at = random.below(segments.len() as u64) as usize;
        if let Some((pages, file)) = segments.get(at).filter(|(pages, _)| *pages > 0) {
            file.write_all_at(&page, random.below(*pages) * PAGE_BYTES)?;
        }
    }
    let wal = File::options().write(true).open(source.join("pg_wal/000000010000000000000001"))?;
    wal.write_all_at(&vec![8; 2 * MB as usize], random.below(WAL_BYTES - 2 * MB))?;
    fill(&source.join("global/pg_control"), PAGE_BYTES, random)?;
    for number in 0..20 {
        fill(&source.join(format!("base/1/{}", 1000 + number)), CATALOG_FILE_BYTES, random)?;
    }
    sync(source)
}

fn fill(path: &Path, size: u64, random: &mut Random) -> Result<(), Failure> {
    let mut file = File::create(path)?;
    let mut piece = vec![0; 1 << 20];
    let mut left = size as usize;
    while left > 0 {
        for word in piece.chunks_exact_mut(8) {
            word.copy_from_slice(&random.next().to_le_bytes());
        }
        let part = left.min(piece.len());
        file.write_all(piece.get(..part).unwrap_or_default())?;
        left -= part;
    }
    Ok(())
}

fn sync(path: &Path) -> Result<(), Failure> {
    run(Command::new("sync").arg("-f").arg(path))
}

fn run(command: &mut Command) -> Result<(), Failure> {
    let status = command.status()?;
    if status.success() { Ok(()) } else { Err(format!("{command:?}: {status}").into()) }
}

fn rest() {
    let until = Instant::now() + Duration::from_millis(2100);
    while Instant::now() < until {
        std::thread::park_timeout(until.saturating_duration_since(Instant::now()));
    }
}

fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / MB as f64
}

fn bytes(text: &str) -> Result<u64, Failure> {
    let wrong = || format!("{text:?} is no size; 10MB or 1GB is one");
    let upper = text.to_ascii_uppercase();
    let (number, unit) = if let Some(number) = upper.strip_suffix("GB") {
        (number, 1000 * MB)
    } else if let Some(number) = upper.strip_suffix("MB") {
        (number, MB)
    } else {
        return Err(wrong().into());
    };
    let number: u64 = number.parse().map_err(|_| wrong())?;
    number.checked_mul(unit).ok_or_else(|| wrong().into())
}

/// xorshift64: content that no file system compresses, the same in each run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }
}
