//! The API on a real port against clients that leak, flood and do not read, with small bounds.
//! The engine is not there and nothing was ever upgraded; what counts is who is answered.

use std::net::SocketAddr;
use std::sync::mpsc;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::config::Sources;
use crate::driver::StateLock;
use crate::engine::docker::Docker;
use crate::journal::{Journal, NewEvent};

/// For what has to happen at some time.
const LIMIT: Duration = Duration::from_secs(60);

struct Served {
    api: Arc<Api>,
    door: Arc<listen::Door>,
    address: SocketAddr,
    directory: tempfile::TempDir,
}

impl Served {
    /// With so many events in the history, and this before each slice of the chain's walk.
    async fn start(
        events: usize,
        limits: Limits,
        before_slice: impl FnMut() + Send + 'static,
    ) -> Self {
        let mut served = Self::new(events, limits, before_slice).await;
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("its number");
        tokio::spawn(listen::accept_tcp(Arc::clone(&served.door), listener));
        served.address = address;
        served
    }

    async fn new(
        events: usize,
        limits: Limits,
        before_slice: impl FnMut() + Send + 'static,
    ) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let at = |name: &str| directory.path().join(name).display().to_string();
        let environment = |key: &str| match key {
            "STATE_DIR" => Some(at("state").into()),
            "RUN_DIR" => Some(at("run").into()),
            "POLICY_URL" => Some(at("policy.json").into()),
            "RUNTIME_MANIFEST_URL" => Some(at("manifest.json").into()),
            _ => None,
        };
        let sources = Sources { environment: &environment, files: Vec::new() };
        let settings = Arc::new(Settings::from_sources(&sources).expect("valid settings").0);
        let nowhere = format!("unix://{}", at("no-engine.sock"));
        let engine = Docker::connect("docker", Some(&nowhere)).await.expect("a client");
        let engine: Arc<dyn Engine> = Arc::new(engine);
        let stop = CancellationToken::new();
        let lock = StateLock::take(&settings.state_dir).expect("the lock");
        let (of_driver, stops) = (Arc::clone(&settings), stop.clone());
        let driver = Driver::new(of_driver, Arc::clone(&engine), lock, stops).expect("a driver");
        let path = settings.journal_path();
        Journal::open(&path).expect("opens").note(&vec![event(); events]).expect("writes");
        let reader = Arc::new(Reader::open(&path).expect("a reader"));
        let chain = ChainWatch::start_with(&path, before_slice);
        let api = Api::with(settings, engine, Arc::new(driver), reader, chain, limits, stop);
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let api = Arc::new(api);
        let door = Arc::new(listen::Door::new(Arc::clone(&api)));
        Self { api, door, address, directory }
    }

    /// A client that has sent this and reads nothing yet.
    async fn send(&self, path: &str) -> TcpStream {
        self.send_as(path, "HTTP/1.1").await
    }

    async fn send_as(&self, path: &str, version: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).await.expect("connects");
        let request =
            format!("GET {path} {version}\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("sends");
        stream
    }

    async fn get(&self, path: &str) -> (u16, Value) {
        // Its answers have no chunks to put together.
        let mut stream = self.send_as(path, "HTTP/1.0").await;
        let mut text = Vec::new();
        tokio::time::timeout(LIMIT, stream.read_to_end(&mut text))
            .await
            .expect("ends")
            .expect("reads");
        let text = String::from_utf8(text).expect("text");
        let (_, body) = text.split_once("\r\n\r\n").unwrap_or_default();
        (status(&text), serde_json::from_str(body).unwrap_or(Value::Null))
    }

    async fn until<T>(&self, what: &str, mut probe: impl AsyncFnMut(&Self) -> Option<T>) -> T {
        let found = tokio::time::timeout(LIMIT, async {
            loop {
                if let Some(found) = probe(self).await {
                    return found;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        found.await.unwrap_or_else(|_| panic!("waited in vain: {what}"))
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.api.stop.cancel();
    }
}

/// Some thousands of them are more than the kernel takes for a client that does not read.
fn event() -> NewEvent {
    let data = [("jobId".to_owned(), "job-0".to_owned()), ("note".to_owned(), "x".repeat(2_000))];
    NewEvent { kind: "upgrade", status: "started", message: "began".into(), data: data.into() }
}

fn status(answer: &str) -> u16 {
    answer.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0)
}

/// The head of an answer, as far as it comes at once.
async fn head(stream: &mut TcpStream) -> String {
    let mut text = vec![0; 2048];
    let read = tokio::time::timeout(LIMIT, stream.read(&mut text)).await.expect("comes");
    text.truncate(read.expect("reads"));
    String::from_utf8_lossy(&text).into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_is_answered_while_the_walk_over_the_chain_is_held_up() {
    let (release, held) = mpsc::channel::<()>();
    let hold = move || {
        // Ends when the other side is dropped, too.
        held.recv().ok();
    };
    let served = Served::start(5_000, Limits::default(), hold).await;
    let (inspect, also, status, history) = tokio::join!(
        served.get("/upgrade/inspect"),
        served.get("/upgrade/inspect"),
        served.get("/upgrade/status"),
        served.get("/history?limit=10000"),
    );
    assert_eq!((status.0, &status.1["state"]), (200, &Value::from("IDLE")));
    assert_eq!((history.0, &history.1["count"]), (200, &Value::from(5_000)));
    assert_eq!((inspect.0, also.0), (200, 200));
    let journal = &inspect.1["checks"]["journal"];
    assert_eq!(journal["status"], "UNKNOWN", "{journal}");
    assert!(journal["message"].as_str().is_some_and(|m| m.contains("row 0 of")), "{journal}");
    drop(release);
    let journal = served
        .until("the chain was walked", async |served| {
            let journal = served.get("/upgrade/inspect").await.1["checks"]["journal"].clone();
            (journal["status"] == "OK").then_some(journal)
        })
        .await;
    let message = journal["message"].as_str().expect("a sentence");
    assert!(
        message.starts_with("5000 rows, the chain holds (the whole was walked at "),
        "{message}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_clients_that_do_not_read_hold_a_bounded_amount_and_are_cut_off() {
    let short = Duration::from_millis(500);
    let limits = Limits { write: 4 * short, turn: short, ..Limits::default() };
    let served = Served::start(6_000, limits, || {}).await;
    let mut clients = Vec::new();
    for _ in 0..60 {
        clients.push(served.send("/history?limit=10000").await);
    }
    // Each has the head of its answer; no client reads more than that.
    let mut answered = Vec::new();
    for client in &mut clients {
        answered.push(status(&head(client).await));
    }
    let long = answered.iter().filter(|status| **status == 200).count();
    let refused = answered.iter().filter(|status| **status == 503).count();
    assert_eq!(long + refused, 60, "{answered:?}");
    assert!(long >= limits.long_answers && refused > 0, "{answered:?}");
    served
        .until("what they did not read is let go", async |served| {
            (served.door.places().long_answers() == 0).then_some(())
        })
        .await;
    assert_eq!(served.api.in_hand.bytes().0, 0, "nothing is kept of it");
    let (_, most) = served.api.in_hand.bytes();
    // Of each of the long answers a page in hand, one in the connection and one to come; of the
    // others a page each, for a moment.
    let page = 2 * limits.page;
    assert!(most <= 3 * page * limits.long_answers + 60 * page, "{most} bytes at once");
    let mut rest = Vec::new();
    // The end comes early, or as a reset.
    tokio::time::timeout(LIMIT, clients[0].read_to_end(&mut rest)).await.expect("ends").ok();
    assert!(
        !rest.ends_with(b"\r\n0\r\n\r\n"),
        "cut off after {} bytes, and it looks whole",
        rest.len()
    );
    assert_eq!(served.get("/history?limit=10000").await.1["count"], 6_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_who_read_all_of_it_at_once_take_turns_and_each_gets_it() {
    let limits = Limits { long_answers: 2, turn: LIMIT, ..Limits::default() };
    let served = Served::start(300, limits, || {}).await;
    let all = (0..20).map(|_| served.get("/history?limit=10000"));
    for (code, answer) in futures_util::future::join_all(all).await {
        assert_eq!((code, &answer["count"]), (200, &Value::from(300)));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_reads_slowly_gets_the_same_history_page_by_page() {
    let served = Served::start(3_000, Limits { page: 1000, ..Limits::default() }, || {}).await;
    let (code, paged) = served.get("/history?limit=2500").await;
    let whole = served
        .api
        .reader
        .history(&crate::journal::HistoryFilter { limit: 2500, ..Default::default() });
    assert_eq!(code, 200);
    assert_eq!(paged["events"], serde_json::json!(whole.expect("reads")));
    assert_eq!(paged["count"], 2500);
    assert_eq!(served.api.in_hand.bytes().0, 0, "all was taken");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_four_streams_of_events_leave_room_for_ordinary_requests() {
    let served = Served::start(0, Limits::default(), || {}).await;
    let mut streams = Vec::new();
    let mut answers = Vec::new();
    for _ in 0..64 {
        let mut stream = served.send("/upgrade/events").await;
        answers.push(head(&mut stream).await);
        streams.push(stream);
    }
    let open = answers.iter().filter(|answer| status(answer) == 200).count();
    let refused: Vec<_> = answers.iter().filter(|answer| status(answer) == 503).collect();
    assert_eq!((open, refused.len()), (32, 32));
    assert!(refused.iter().all(|answer| answer.contains("retry-after: 1")), "{refused:?}");
    assert_eq!(served.get("/upgrade/status").await.0, 200);
    drop(streams);
    served
        .until("the places of the streams are free", async |served| {
            let mut stream = served.send("/upgrade/events").await;
            (status(&head(&mut stream).await) == 200).then_some(())
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_connections_give_way_and_a_full_house_says_so() {
    let limits = Limits { connections: 4, idle: Duration::ZERO, ..Limits::default() };
    let served = Served::start(6_000, limits, || {}).await;
    let mut leaked = Vec::new();
    for _ in 0..20 {
        leaked.push(TcpStream::connect(served.address).await.expect("connects"));
    }
    assert_eq!(served.get("/health").await.0, 200);
    let mut busy = Vec::new();
    for _ in 0..limits.connections {
        let mut client = served.send("/history?limit=10000").await;
        assert_eq!(status(&head(&mut client).await), 200);
        busy.push(client);
    }
    let (code, refused) = served.get("/health").await;
    assert_eq!((code, &refused["code"]), (503, &Value::from("TOO_MANY_CONNECTIONS")));
    drop(busy);
    served
        .until("there is room again", async |served| {
            (served.get("/health").await.0 == 200).then_some(())
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_take_no_places_of_those_who_may_call() {
    let limits = Limits { connections: 1, idle: LIMIT, farewell: LIMIT, ..Limits::default() };
    let mut served = Served::new(0, limits, || {}).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    served.address = listener.local_addr().expect("its number");
    let strangers = 200;
    let door = Arc::clone(&served.door);
    let accepting = tokio::spawn(async move {
        for _ in 0..strangers {
            let (stream, _) = listener.accept().await.expect("accepts");
            listen::admit(&door, stream, [203, 0, 113, 9].into());
        }
        let (stream, peer) = listener.accept().await.expect("accepts");
        listen::admit(&door, stream, peer.ip());
        door
    });
    let mut crowd = Vec::new();
    for _ in 0..strangers {
        crowd.push(TcpStream::connect(served.address).await.expect("connects"));
    }
    assert_eq!(status(&head(&mut crowd[0]).await), 403);
    assert_eq!(served.get("/health").await.0, 200);
    accepting.await.expect("it ends");
}

#[tokio::test]
async fn before_the_first_job_the_container_is_the_one_that_the_manifest_names() {
    let served = Served::new(1, Limits::default(), || {}).await;
    assert_eq!(endpoints::container_name(&served.api).await, None, "there is no manifest");
    let other = Served::new(1, Limits::default(), || {}).await;
    let manifest =
        r#"{"image": {"repo": "payramapp/payram"}, "defaults": {"container_name": "till"}}"#;
    let path = other.directory.path().join("manifest.json");
    std::fs::write(path, manifest).expect("a manifest");
    assert_eq!(endpoints::container_name(&other.api).await.as_deref(), Some("till"));
}
