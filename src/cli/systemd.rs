//! What systemd is told of the daemon (sd_notify(3)): that it is ready, what it does, and that it
//! still does it.
//!
//! The watchdog is fed only while all of it goes on: the driver's loop turns ([`Pulse`]), the
//! socket takes a request, the journal can be asked. What is slow by itself does not count as
//! stuck: long work runs beside the loop, and a journal that can't be used is an answer too.
//! Called by `serve`; nothing of it runs where no systemd listens.

use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use crate::driver::{Driver, JobView};
use crate::journal::Reader;

/// Between two beats of a loop that turns.
const BEAT_EVERY: Duration = Duration::from_millis(250);

/// Between two looks at what is done.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// How long one look at a part of the daemon may take; the watchdog's whole time is longer.
const PATIENCE: Duration = Duration::from_secs(10);

/// The watchdog is fed so many times as often as it has to be, so that one that was missed is made
/// up for.
const FEEDS_IN_TIME: u32 = 3;

/// The most that is told as the status, in characters.
const STATUS_CHARS: usize = 200;

/// The smallest question that the daemon answers.
const QUESTION: &[u8] = b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

/// Tells systemd; without it there is nobody to tell.
pub(super) fn notify(state: &str) {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else { return };
    let told = UnixDatagram::unbound().and_then(|socket| {
        match path.to_string_lossy().strip_prefix('@') {
            // An abstract socket: its name begins with a zero byte.
            Some(name) => {
                use std::os::linux::net::SocketAddrExt;
                let address = std::os::unix::net::SocketAddr::from_abstract_name(name)?;
                socket.send_to_addr(state.as_bytes(), &address)
            }
            None => socket.send_to(state.as_bytes(), &path),
        }
    });
    if let Err(error) = told {
        tracing::warn!(%error, "systemd could not be told {state}");
    }
}

/// Beats while a piece of work is not stuck: they share a task, so that work which blocks its
/// thread, or a runtime that gives it none, stops the beat.
#[derive(Default)]
pub(super) struct Pulse(AtomicU64);

impl Pulse {
    /// Does the work, beating.
    pub(super) async fn of<T>(&self, work: impl Future<Output = T>) -> T {
        let mut beat = interval(BEAT_EVERY);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut work = std::pin::pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return done,
                _ = beat.tick() => self.0.fetch_add(1, Ordering::Relaxed),
            };
        }
    }

    fn beats(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What is looked at.
pub(super) struct Watched {
    pub driver: Arc<Driver>,
    pub reader: Arc<Reader>,
    pub pulse: Arc<Pulse>,
}

/// Tells systemd what is done, and feeds its watchdog, until told to stop. `socket` is where the
/// daemon answers.
pub(super) async fn keep_told(watched: Watched, socket: &Path, stop: CancellationToken) {
    if std::env::var_os("NOTIFY_SOCKET").is_none() {
        return;
    }
    let feed_every = watchdog().map(|limit| limit / FEEDS_IN_TIME);
    let look_every = feed_every.map_or(LOOK_EVERY, |feed| feed.min(LOOK_EVERY));
    let (mut told, mut fed, mut beats) = (String::new(), Instant::now(), watched.pulse.beats());
    loop {
        tokio::select! {
            () = tokio::time::sleep(look_every) => {}
            () = stop.cancelled() => return,
        }
        let status = watched.status().await;
        if let Some(status) = &status
            && *status != told
        {
            notify(&format!("STATUS={status}"));
            told.clone_from(status);
        }
        let Some(feed_every) = feed_every else { continue };
        if fed.elapsed() < feed_every {
            continue;
        }
        let now = watched.pulse.beats();
        let stuck = match (now > beats, status.is_some(), answers(socket).await) {
            (true, true, true) => {
                notify("WATCHDOG=1");
                (fed, beats) = (Instant::now(), now);
                continue;
            }
            (false, _, _) => "the loop that runs upgrades stands still",
            (_, false, _) => "the journal does not answer",
            (_, _, false) => "the socket does not answer",
        };
        tracing::error!(
            "{stuck}: systemd's watchdog is not fed, and restarts this program in time"
        );
        // Said once in this time, and looked at again as often.
        fed = Instant::now();
    }
}

impl Watched {
    /// What is done, in a line; none when the journal does not answer at all.
    async fn status(&self) -> Option<String> {
        let reader = Arc::clone(&self.reader);
        let asked = tokio::task::spawn_blocking(move || reader.last_job());
        let job = timeout(PATIENCE, asked).await.ok()?;
        Some(match job {
            Ok(Ok(Some(job))) => status_of(&self.driver.view(&job)),
            Ok(Ok(None)) => "Ready; no upgrade was ever run here".to_owned(),
            Ok(Err(error)) => line(&format!("The journal can't be used: {error}")),
            Err(_panicked) => "The journal can't be used; see the log".to_owned(),
        })
    }
}

/// `Upgrade 1.9.6 -> 2.0.0: PULLED, stop_old: Stopping the old container`
fn status_of(job: &JobView) -> String {
    let from = job.from_version.as_deref().unwrap_or("?");
    let way = format!("{from} -> {}", job.resolved_target);
    let phase = job.phase.unwrap_or(&job.state);
    if job.active != Some(true) {
        return line(&format!("Ready; the last upgrade, {way}, ended {phase}"));
    }
    let step = job.step.map(|step| format!(", {step}")).unwrap_or_default();
    let percent = job.progress.map(|percent| format!(" ({percent} %)")).unwrap_or_default();
    let doing = job.blocked.as_deref().unwrap_or(&job.message);
    line(&format!("Upgrade {way}: {phase}{step}{percent}: {doing}"))
}

/// One line, not too long: what follows a line's end would be another message to systemd.
fn line(text: &str) -> String {
    let clean = |c: char| if c.is_control() { ' ' } else { c };
    text.chars().map(clean).take(STATUS_CHARS).collect()
}

/// How long systemd waits for a sign of life of this process.
fn watchdog() -> Option<Duration> {
    let text = |key| std::env::var(key).ok();
    watchdog_of(text("WATCHDOG_USEC"), text("WATCHDOG_PID"), std::process::id())
}

fn watchdog_of(limit: Option<String>, whose: Option<String>, own: u32) -> Option<Duration> {
    let is_ours = whose.is_none_or(|pid| pid.parse() == Ok(own));
    let limit = limit?.parse().ok().filter(|limit| is_ours && *limit > 0)?;
    Some(Duration::from_micros(limit))
}

/// Whether the daemon takes a request. A refusal is a sign of life, too.
async fn answers(socket: &Path) -> bool {
    let asking = async {
        let mut stream = UnixStream::connect(socket).await?;
        stream.write_all(QUESTION).await?;
        stream.read(&mut [0; 64]).await
    };
    matches!(timeout(PATIENCE, asking).await, Ok(Ok(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_pulse_beats_while_the_work_waits() {
        let pulse = Pulse::default();
        pulse.of(tokio::time::sleep(Duration::from_secs(5))).await;
        assert!(pulse.beats() > 10, "{}", pulse.beats());
    }

    #[tokio::test(start_paused = true)]
    async fn the_pulse_stops_with_work_that_gives_nothing_else_a_turn() {
        let pulse = Pulse::default();
        let before = pulse.of(async { pulse.beats() }).await;
        // Work that never waits: as long as it is at it, nothing beats.
        let after = pulse
            .of(async {
                for _ in 0..3 {
                    std::thread::sleep(BEAT_EVERY);
                }
                pulse.beats()
            })
            .await;
        assert!(after <= before + 1, "{before}, then {after}");
    }

    #[test]
    fn the_status_says_phase_and_step_and_stays_one_line() {
        let job = JobView {
            from_version: Some("1.9.6".into()),
            resolved_target: "2.0.0".into(),
            phase: Some("PULLED"),
            step: Some("pre_copy"),
            progress: Some(40),
            message: "Copying\nthe database".into(),
            active: Some(true),
            ..JobView::default()
        };
        let status = status_of(&job);
        assert_eq!(status, "Upgrade 1.9.6 -> 2.0.0: PULLED, pre_copy (40 %): Copying the database");
        let ended = JobView { active: Some(false), phase: Some("VERIFIED"), ..job };
        assert_eq!(status_of(&ended), "Ready; the last upgrade, 1.9.6 -> 2.0.0, ended VERIFIED");
    }

    #[test]
    fn another_processs_watchdog_is_not_ours() {
        let limit = || Some("3000000".to_owned());
        assert_eq!(watchdog_of(limit(), None, 7), Some(Duration::from_secs(3)));
        assert_eq!(watchdog_of(limit(), Some("7".into()), 7), Some(Duration::from_secs(3)));
        assert_eq!(watchdog_of(limit(), Some("8".into()), 7), None);
        assert_eq!(watchdog_of(Some("soon".into()), None, 7), None);
        assert_eq!(watchdog_of(None, None, 7), None);
    }

    #[tokio::test]
    async fn a_socket_that_nobody_answers_on_is_no_sign_of_life() {
        let directory = tempfile::tempdir().expect("a directory");
        assert!(!answers(&directory.path().join("updater.sock")).await);
    }
}
