//! What many clients that want all of the history cost the daemon in memory.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::Failure;
use crate::shop::Shop;
use crate::support::Daemon;
use crate::support::http::Request;

/// How long the crowd stays.
const STAYS: Duration = Duration::from_secs(15);

/// After they have left.
const LATER: Duration = Duration::from_secs(5);

/// Resident bytes of the daemon.
pub struct Memory {
    pub before: u64,
    /// With clients that do not read: the most, when they have been there for a while, and after
    /// they have left.
    pub unread: u64,
    pub unread_late: u64,
    pub unread_after: u64,
    /// With as many that read all, at once: the most, and after it.
    pub read: u64,
    pub read_after: u64,
    /// Of those that read all, how many got it, and how many were told to ask again.
    pub whole: usize,
    pub refused: usize,
}

pub fn crowd(shop: &Shop, daemon: &Daemon, count: usize) -> Result<Memory, Failure> {
    let pid = daemon.pid();
    let before = resident(pid)?;
    let clients: Vec<TcpStream> =
        (0..count).map(|_| silent(shop.port)).collect::<Result<_, _>>()?;
    let (begin, mut unread, mut unread_late) = (Instant::now(), 0, 0);
    while begin.elapsed() < STAYS {
        unread_late = resident(pid)?;
        unread = unread.max(unread_late);
        std::thread::sleep(Duration::from_millis(20));
    }
    drop(clients);
    std::thread::sleep(LATER);
    let unread_after = resident(pid)?;

    let port = shop.port;
    let readers: Vec<_> = (0..count).map(|_| std::thread::spawn(move || ask(port))).collect();
    let mut read = 0;
    while !readers.iter().all(std::thread::JoinHandle::is_finished) {
        read = read.max(resident(pid)?);
        std::thread::sleep(Duration::from_millis(5));
    }
    let (mut whole, mut refused) = (0, 0);
    for reader in readers {
        match reader.join().map_err(|_| "a reader panicked")?? {
            200 => whole += 1,
            503 => refused += 1,
            other => return Err(format!("history: {other}").into()),
        }
    }
    std::thread::sleep(LATER);
    let read_after = resident(pid)?;
    Ok(Memory { before, unread, unread_late, unread_after, read, read_after, whole, refused })
}

/// A client that asks and does not read.
fn silent(port: u16) -> Result<TcpStream, Failure> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.write_all(b"GET /history?limit=10000 HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
    Ok(stream)
}

fn ask(port: u16) -> Result<u16, String> {
    let patience = Duration::from_secs(60);
    let answer = Request::get("/history?limit=10000").patience(patience).to_port(port);
    answer.map(|answer| answer.status).map_err(|error| error.to_string())
}

fn resident(pid: u32) -> Result<u64, Failure> {
    let mut text = String::new();
    std::fs::File::open(format!("/proc/{pid}/status"))?.read_to_string(&mut text)?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes: u64 =
        line.and_then(|line| line.split_whitespace().next()).ok_or("no VmRSS")?.parse()?;
    Ok(kilobytes * 1024)
}
