//! `NOTIFY_URL` on the make-believe engine: what is posted, that it is tried again and not told
//! twice, and that nothing depends on whether anybody takes it.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::{Value, json};

use crate::shop::{END, SOON, Shop};
use crate::support::{Daemon, wait_until};

/// One that was posted: its headers in lower case, and its body.
#[derive(Clone, Debug)]
struct Letter {
    head: String,
    body: String,
}

impl Letter {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines();
        lines.filter_map(|line| line.split_once(": ")).find(|(key, _)| *key == name).map(|(_, v)| v)
    }
}

/// Whoever is told: takes what is posted, or answers these statuses first.
struct Hook {
    port: u16,
    letters: Arc<Mutex<Vec<Letter>>>,
    statuses: Arc<Mutex<VecDeque<u16>>>,
}

impl Hook {
    fn open() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("its number").port();
        let hook = Self { port, letters: Arc::default(), statuses: Arc::default() };
        let (letters, statuses) = (Arc::clone(&hook.letters), Arc::clone(&hook.statuses));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let status = statuses.lock().expect("whole").pop_front().unwrap_or(204);
                // A daemon that is killed in the middle of it posts nothing whole.
                let Some(letter) = take(stream, status) else { continue };
                letters.lock().expect("whole").push(letter);
            }
        });
        hook
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}/hooks/hunter2?token=hunter2", self.port)
    }

    fn answer(&self, statuses: &[u16]) {
        self.statuses.lock().expect("whole").extend(statuses);
    }

    /// `upgrade.started 3`: subject and id of each, in order.
    fn taken(&self) -> Vec<String> {
        let letters = self.letters.lock().expect("whole");
        let of = |letter: &Letter| letter.header("x-payram-event").unwrap_or_default().to_owned();
        letters.iter().map(of).collect()
    }

    fn wait(&self, subject: &str) -> Letter {
        wait_until(&format!("{subject} is posted"), SOON, || {
            let letters = self.letters.lock().expect("whole");
            let is_it = |letter: &&Letter| letter.header("x-payram-event") == Some(subject);
            letters.iter().find(is_it).cloned()
        })
    }
}

fn take(stream: TcpStream, status: u16) -> Option<Letter> {
    let mut reader = BufReader::new(stream);
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
        if line.trim().is_empty() {
            break;
        }
        let line = match line.split_once(": ") {
            Some((name, value)) => format!("{}: {value}", name.to_lowercase()),
            None => line,
        };
        if let Some(value) = line.strip_prefix("content-length: ") {
            length = value.trim().parse().ok()?;
        }
        head.push_str(&line);
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let answer = format!("HTTP/1.1 {status} X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    reader.into_inner().write_all(answer.as_bytes()).ok()?;
    Some(Letter { head, body: String::from_utf8(body).ok()? })
}

fn told(daemon: &Daemon, status: &str) -> Vec<Value> {
    let path = format!("/history?type=notification&status={status}");
    daemon.get(&path).json()["events"].as_array().expect("events").clone()
}

#[test]
fn what_happens_is_posted_once_signed_and_in_order_and_a_restart_tells_none_of_it_again() {
    let hook = Hook::open();
    let mut shop =
        Shop::open(json!({"1.9.7": {}, "2.0.0": {"health": [500], "takesPayments": false}}));
    let early = shop.daemon();
    assert_eq!(shop.upgrade("1.9.7").0, Some(0));
    assert!(early.terminate().success());

    shop.set("NOTIFY_URL", &hook.url());
    shop.set("NOTIFY_SECRET", "swordfish");
    let daemon = shop.daemon();
    wait_until("it begins", SOON, || told(&daemon, "started").pop());
    // Busy at first: the same letter is posted again.
    hook.answer(&[503]);
    assert_eq!(shop.upgrade("2.0.0").0, Some(4));
    let ended = hook.wait("upgrade.rolled_back");
    assert_eq!(hook.taken(), ["upgrade.started", "upgrade.started", "upgrade.rolled_back"]);
    let posted = ended.json();
    let event = daemon.get("/history?type=upgrade&limit=1").json()["events"][0].clone();
    for field in ["id", "timestamp", "type", "status", "message", "data"] {
        assert_eq!(posted[field], event[field], "{field}");
    }
    assert_eq!(ended.header("x-payram-delivery").map(str::trim), event["id"].as_str());
    assert_eq!((&posted["needsOperator"], &posted["how"]), (&json!(false), &json!([])));
    assert!(posted["text"].as_str().expect("a line").contains("upgrade to 2.0.0 failed"));
    assert_eq!(ended.header("x-payram-signature").map(str::trim), Some(&*signed(&ended.body)));
    wait_until("both are written down", SOON, || {
        (told(&daemon, "succeeded").len() == 2).then_some(())
    });
    assert!(daemon.terminate().success());

    let daemon = shop.daemon();
    let config = shop.cli(&["config", "--text"]);
    assert_eq!(shop.upgrade("2.0.0").0, Some(4));
    wait_until("the second one is told", SOON, || {
        (told(&daemon, "succeeded").len() == 4).then_some(())
    });
    assert_eq!(hook.taken().len(), 5, "none was told twice: {:?}", hook.taken());
    // The address is a secret of its own.
    let logs = [shop.last_lines(), daemon.get("/history?limit=1000").body, as_text(&config.stdout)];
    assert!(
        logs.iter().all(|text| !text.contains("hunter2") && !text.contains("swordfish")),
        "{logs:?}"
    );
    assert!(logs[2].contains("http://127.0.0.1/***"), "{}", logs[2]);
    assert_eq!(shop.cli(&["journal", "verify"]).status.code(), Some(0));
}

#[test]
fn a_hook_that_refuses_fails_nothing_and_a_person_who_is_needed_is_named() {
    let hook = Hook::open();
    let mut shop = Shop::open(json!({"1.9.7": {},
        "9.0.5": {"migration": {"schema": true, "rows": 10, "fails": true}}}));
    shop.set("NOTIFY_URL", &hook.url());
    let daemon = shop.daemon();
    wait_until("it begins", SOON, || told(&daemon, "started").pop());
    hook.answer(&[404, 302]);
    assert_eq!(shop.upgrade("1.9.7").0, Some(0));
    let failed = wait_until("both were refused", SOON, || {
        Some(told(&daemon, "failed")).filter(|events| events.len() == 2)
    });
    let message = |event: &Value| event["message"].as_str().expect("a sentence").to_owned();
    assert!(message(&failed[1]).contains("404"), "{failed:#?}");
    assert!(message(&failed[0]).contains("a redirect is not followed"), "{failed:#?}");
    let report = daemon.get("/upgrade/inspect").json();
    assert_eq!(report["checks"]["notifications"]["status"], "WARNING", "{report:#}");
    assert_eq!(report["overallState"], "OK", "a hook says nothing about the shop: {report:#}");

    assert_eq!(shop.upgrade("9.0.5").0, Some(5));
    let stopped = hook.wait("upgrade.failed");
    let posted = stopped.json();
    assert_eq!(posted["needsOperator"], true, "{posted:#}");
    assert_eq!(posted["how"][0], "payram-updater recover", "{posted:#}");
    assert_eq!(stopped.header("x-payram-signature"), None, "nothing to sign it with");
    daemon.wait_settled(END);
}

/// What the header of a body is, by another program.
fn signed(body: &str) -> String {
    let script = "import hashlib, hmac, sys; \
        print('sha256=' + hmac.new(b'swordfish', sys.stdin.buffer.read(), hashlib.sha256).hexdigest())";
    let mut child = std::process::Command::new("python3")
        .args(["-c", script])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("python3");
    child.stdin.take().expect("piped").write_all(body.as_bytes()).expect("written");
    as_text(&child.wait_with_output().expect("it ends").stdout).trim().to_owned()
}

fn as_text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
