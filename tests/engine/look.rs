//! What a container does and did, as the real engine tells it.

use futures_util::TryStreamExt;
use payram_updater::engine::{Change, ChangeKind, MountSummary};

use super::*;

/// The engine's clock; it runs on this machine.
fn now_ms() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    i64::try_from(now.expect("after the epoch").as_millis()).expect("some centuries")
}

#[tokio::test]
async fn the_processes_of_a_container_are_known_with_their_parents() {
    let Some(engine) = engine() else { return };
    let container =
        Container::create(&engine, json!(["sh", "-c", "sleep 3600 & sleep 3601; true"])).await;
    let refused = engine.processes(&container.id).await.expect_err("it does not run");
    assert_eq!(refused.status(), Some(409), "{refused}");

    engine.start(&container.id).await.expect("started");
    let processes = soon(async {
        loop {
            let processes = engine.processes(&container.id).await.expect("processes");
            if processes.iter().filter(|it| it.command.starts_with("sleep 360")).count() == 2 {
                return processes;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
    let first = container.inspect(&engine).await["State"]["Pid"].as_u64().expect("a number");
    let shell = processes.iter().find(|it| it.command.starts_with("sh -c")).expect("the shell");
    assert_eq!(u64::from(shell.pid), first);
    assert!(shell.age < PATIENCE, "{shell:?}");
    for sleeper in processes.iter().filter(|it| it.command.starts_with("sleep")) {
        assert_eq!(sleeper.parent, shell.pid, "{processes:?}");
    }
}

#[tokio::test]
async fn what_a_container_changed_in_its_own_file_system_is_listed() {
    let Some(engine) = engine() else { return };
    let untouched = Container::create(&engine, json!(["true"])).await;
    assert_eq!(engine.changes(&untouched.id).await.expect("changes"), []);

    let script = "echo new > /new; busybox rm /bin/wc; exec sleep 3600";
    let container = Container::create(&engine, json!(["sh", "-c", script])).await;
    engine.start(&container.id).await.expect("started");
    let wanted = [
        ("/bin", ChangeKind::Modified),
        ("/bin/wc", ChangeKind::Deleted),
        ("/new", ChangeKind::Added),
    ];
    soon(async {
        loop {
            let changes = engine.changes(&container.id).await.expect("changes");
            let is_listed = |(path, kind): &(&str, ChangeKind)| {
                changes.contains(&Change { path: (*path).to_owned(), kind: *kind })
            };
            if wanted.iter().all(is_listed) {
                return;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_file_of_a_container_comes_as_an_archive_while_it_runs_and_after() {
    let Some(engine) = engine() else { return };
    let script = "echo the shop > /note; exec sleep 3600";
    let container = Container::create(&engine, json!(["sh", "-c", script])).await;
    engine.start(&container.id).await.expect("started");
    soon(async {
        while engine.archive(&container.id, "/note").await.is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    for runs in [true, false] {
        if !runs {
            engine.kill(&container.id).await.expect("killed");
        }
        let stream = engine.archive(&container.id, "/note").await.expect("an archive");
        let pieces: Vec<_> = soon(stream.try_collect()).await.expect("all of it");
        let tar = pieces.concat();
        assert!(tar.starts_with(b"note\0"), "{runs}: {:?}", tar.get(..20));
        assert_eq!(tar.get(512..521), Some(&b"the shop\n"[..]), "{runs}");
    }
    let error = engine.archive(&container.id, "/nowhere").await.err().expect("no such path");
    assert_eq!(error.status(), Some(404), "{error}");
    assert!(error.to_string().contains("/nowhere"), "{error}");
}

#[tokio::test]
async fn a_killed_container_does_not_run_and_may_be_killed_again() {
    let Some(engine) = engine() else { return };
    let container = Container::running(&engine).await;
    engine.kill(&container.id).await.expect("killed");
    let state = container.inspect(&engine).await["State"].clone();
    assert_eq!((&state["Running"], &state["ExitCode"]), (&json!(false), &json!(137)));
    engine.kill(&container.id).await.expect("does not run, which is fine");
    let nowhere = format!("{}-nowhere", container.name);
    assert_eq!(engine.kill(&nowhere).await.expect_err("none").status(), Some(404));
}

#[tokio::test]
async fn the_past_events_of_one_container_are_told_in_their_order() {
    let Some(engine) = engine() else { return };
    let before = now_ms();
    let container = Container::running(&engine).await;
    // A name that begins as the first one's; its events are not the first one's.
    let other = Container::create(&engine, json!(["true"])).await;
    let longer = format!("{}-old", container.name);
    engine.rename(&other.id, &longer).await.expect("renamed");
    engine.start(&other.id).await.expect("started");
    engine.stop(&container.id, Some(Duration::ZERO)).await.expect("stopped");
    let after = now_ms();
    for id in [&container.id, &container.name] {
        let events = soon(engine.events_between(id, before, after)).await.expect("events");
        let actions: Vec<_> = events.iter().map(|event| event.action.as_str()).collect();
        let (last, rest) = actions.split_last().expect("events");
        assert_eq!((*last, &rest[..2]), ("stop", &["create", "start"][..]), "{actions:?}");
        assert!(rest[2..].ends_with(&["kill", "die"]), "{actions:?}");
        for event in &events {
            assert!((before..=after).contains(&event.at_ms), "{event:?}");
            assert_eq!(event.attributes["name"], container.name);
        }
        let death = events.iter().find(|event| event.action == "die").expect("its end");
        assert_eq!(death.attributes["exitCode"], "137");
        let earlier = soon(engine.events_between(id, 0, before - 1)).await.expect("events");
        assert_eq!(earlier, []);
    }
}

#[tokio::test]
async fn a_listing_tells_what_is_mounted_and_a_volume_is_found_by_its_name() {
    let Some(engine) = engine() else { return };
    let directory = tempfile::tempdir().expect("a directory");
    let source = directory.path().to_str().expect("text").to_owned();
    let name = format!("payram-test-{}", uuid::Uuid::now_v7());
    assert_eq!(engine.inspect_volume(&name).await.expect("asked"), None);
    let spec = json!({
        "Image": IMAGE,
        "Cmd": ["true"],
        "Labels": { "payram-test": name },
        "HostConfig": {
            "NetworkMode": "none",
            "Binds": [format!("{source}:/bound:ro"), format!("{name}:/volume")],
        },
    });
    let id = engine.create_container(&name, &spec).await.expect("created");
    let _volume = Volume(name.clone());
    let _container = Container { id, name: name.clone() };
    let volume = engine.inspect_volume(&name).await.expect("asked").expect("there");
    let mountpoint = volume["Mountpoint"].as_str().expect("a path").to_owned();

    let label = format!("payram-test={name}");
    let mut listed = engine.containers(Some(&label)).await.expect("listed");
    let mut mounts = listed.pop().expect("the container").mounts;
    mounts.sort_by(|one, other| one.destination.cmp(&other.destination));
    let expected = [
        MountSummary {
            kind: "bind".into(),
            name: None,
            source,
            destination: "/bound".into(),
            writable: false,
        },
        MountSummary {
            kind: "volume".into(),
            name: Some(name),
            source: mountpoint,
            destination: "/volume".into(),
            writable: true,
        },
    ];
    assert_eq!(mounts, expected);
}

/// A volume that is removed with the test, after the containers on it.
struct Volume(String);

impl Drop for Volume {
    fn drop(&mut self) {
        let removed = docker_command().args(["volume", "rm", &self.0]).output();
        if !removed.is_ok_and(|output| output.status.success()) {
            eprintln!("volume {} is left", self.0);
        }
    }
}
