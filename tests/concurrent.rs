//! Several who ask at once: one of them gets the upgrade, the others are told who has it (I8).

mod support;

use std::sync::Barrier;
use std::time::Duration;

use serde_json::{Value, json};
use support::http::Request;
use support::{Answer, World, require};

#[test]
fn of_eight_requests_at_once_one_gets_the_upgrade_and_seven_are_told_its_id() {
    if !require("docker") {
        return;
    }
    let world = World::start("1.9.6");
    let daemon = world.daemon();
    let wanted = json!({"requestedTarget": "1.9.7", "source": "dashboard"});
    let together = Barrier::new(8);

    let answers: Vec<Answer> = std::thread::scope(|scope| {
        let ask = || {
            together.wait();
            // Eight plans at once: each looks at the container by several commands.
            let body = wanted.to_string();
            let request = Request::post("/upgrade/run", &body);
            let patience = Duration::from_secs(90);
            request.patience(patience).to_port(world.updater_port).expect("an answer")
        };
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(ask)).collect();
        threads.into_iter().map(|thread| thread.join().expect("an answer")).collect()
    });

    let started: Vec<Value> =
        answers.iter().filter(|answer| answer.status == 200).map(Answer::json).collect();
    assert_eq!(started.len(), 1, "{answers:?}");
    let job = &started[0]["jobId"];
    assert!(job.as_str().is_some_and(|job| job.starts_with("job-")), "{answers:?}");
    assert_eq!(started[0]["state"], "READY");
    let refused: Vec<Value> =
        answers.iter().filter(|answer| answer.status == 409).map(Answer::json).collect();
    assert_eq!(refused.len(), 7, "{answers:?}");
    for answer in &refused {
        assert_eq!(answer["error"], "An active job already exists", "{answer}");
        assert_eq!(&answer["jobId"], job, "{answer}");
        assert!(answer["state"].is_string() && answer["message"].is_string(), "{answer}");
    }

    let ended = daemon.wait_settled(Duration::from_secs(150));
    assert_eq!(&ended["jobId"], job);
    assert_eq!(ended["phase"], "VERIFIED", "{ended}");
    let begun = daemon.get("/history?type=upgrade&status=started").json();
    assert_eq!(begun["count"], 1, "{begun}");
    assert_eq!(world.version().as_deref(), Some("1.9.7"));
    world.wait_for_payments(5);
    assert_eq!(world.lost(), Vec::<String>::new());
    assert_eq!(world.two_at_once(), Vec::<String>::new());
}
