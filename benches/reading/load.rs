//! Clients that read: one that polls the status, and loops that ask for `inspect`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::Failure;
use crate::support::http::Request;

/// Between the beginnings of two questions for the status.
const EVERY: Duration = Duration::from_millis(10);

/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the check of the journal says in an `inspect` over TCP.
pub fn inspect(port: u16) -> Result<String, Failure> {
    let answer = Request::get("/upgrade/inspect").patience(PATIENCE).to_port(port)?.json();
    Ok(answer["checks"]["journal"]["message"].as_str().ok_or("no check of the journal")?.to_owned())
}

/// How long each answer took.
#[derive(Default)]
pub struct Statuses {
    times: Vec<Duration>,
}

impl Statuses {
    /// Asks for so long.
    pub fn poll(&mut self, port: u16, time: Duration) -> Result<(), Failure> {
        let begin = Instant::now();
        while begin.elapsed() < time {
            let asked = Instant::now();
            let answer = Request::get("/upgrade/status").patience(PATIENCE).to_port(port)?;
            if answer.status != 200 {
                return Err(format!("status: {answer:?}").into());
            }
            self.times.push(asked.elapsed());
            std::thread::sleep(EVERY.saturating_sub(asked.elapsed()));
        }
        Ok(())
    }

    pub fn add(&mut self, times: Vec<Duration>) {
        self.times.extend(times);
    }

    pub fn count(&self) -> usize {
        self.times.len()
    }

    /// The time within which so many of a thousand answers came.
    pub fn within(&self, of_thousand: usize) -> Duration {
        let mut times = self.times.clone();
        times.sort();
        let index = (times.len() * of_thousand / 1000).min(times.len().saturating_sub(1));
        times.get(index).copied().unwrap_or_default()
    }
}

/// Clients that ask for `inspect` again as soon as they are answered.
pub struct Loops {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Result<Vec<Duration>, String>>>,
}

impl Loops {
    pub fn start(port: u16, count: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let threads = (0..count).map(|_| {
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || {
                let mut times = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    let asked = Instant::now();
                    let answer = Request::get("/upgrade/inspect").patience(PATIENCE).to_port(port);
                    match answer {
                        Ok(answer) if answer.status == 200 => times.push(asked.elapsed()),
                        Ok(answer) => return Err(format!("inspect: {answer:?}")),
                        Err(error) => return Err(format!("inspect: {error}")),
                    }
                }
                Ok(times)
            })
        });
        let threads = threads.collect();
        Self { stop, threads }
    }

    /// How long each of their answers took.
    pub fn end(self) -> Result<Vec<Duration>, Failure> {
        self.stop.store(true, Ordering::Relaxed);
        let mut times = Vec::new();
        for thread in self.threads {
            times.extend(thread.join().map_err(|_| "a loop panicked")??);
        }
        Ok(times)
    }
}
