//! Where a core is looked for, how patiently, and how often.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

/// A server that counts the connections on which something was asked.
async fn counting(
    address: &str,
    answer: impl Fn(usize) -> Vec<u8> + Send + Sync + 'static,
) -> (Server, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let answer = Arc::new(answer);
    let server = serve_at(address, move |_, mut connection| {
        let number = count.fetch_add(1, Ordering::SeqCst);
        let answer = Arc::clone(&answer);
        async move {
            let _ = connection.write_all(&answer(number)).await;
        }
    })
    .await;
    (server, asked)
}

/// A server that answers as a core, after this long.
async fn slow_core(after: Duration) -> Server {
    serve(move |path, mut connection| async move {
        tokio::time::sleep(after).await;
        let body = match path.as_str() {
            "/api/v1/health" => r#"{"status":"ok","db":"ok"}"#,
            "/api/v1/version" => r#"{"version":"1.9.6"}"#,
            _ => WELCOME,
        };
        let _ = connection.write_all(&response(200, body)).await;
    })
    .await
}

/// The inspection of a container that publishes these ports, inside and on the host.
fn mapping(ports: &[(u16, u16)]) -> Value {
    let published: serde_json::Map<String, Value> = ports
        .iter()
        .map(|(inside, host)| {
            let bound = json!([{"HostIp": "127.0.0.1", "HostPort": host.to_string()}]);
            (format!("{inside}/tcp"), bound)
        })
        .collect();
    json!({"Id": "c1", "NetworkSettings": {"Ports": published}})
}

/// With this address on a network of its own, and these ports exposed.
fn with_own(mut container: Value, ip: std::net::IpAddr, port: u16) -> Value {
    container["NetworkSettings"]["Networks"] = json!({"proxy": {"IPAddress": ip.to_string()}});
    container["Config"] = json!({"ExposedPorts": {format!("{port}/tcp"): {}}});
    container
}

#[tokio::test]
async fn a_core_whose_every_answer_is_slow_is_found_and_judged_by_who_waits_for_it() {
    let core = slow_core(Duration::from_millis(400)).await;
    let container = mapping(&[(80, core.port)]);
    let patient = Probe { within: Duration::from_secs(10), ..probe() };
    let engine = FakeEngine::default();
    let place = patient.find(&engine, &container).await.expect("it answers");
    assert_eq!(patient.judge(&place, &api(), &container).await, Ok("1.9.6".into()));

    let hasty = Probe { within: Duration::from_millis(50), ..probe() };
    let silent = hasty.find(&engine, &container).await.expect_err("too slow for it");
    assert!(silent.to_string().contains("no whole answer within 0.05 s"), "{silent}");
    assert!(!silent.is_behind_a_front());
    let unfit = hasty.judge(&place, &api(), &container).await.expect_err("too slow for it");
    assert!(
        matches!(&unfit, Unfit::Silent(why) if why.contains("/api/v1/health: no whole answer"))
    );
}

#[tokio::test]
async fn why_a_version_is_not_believed_is_told_apart() {
    let said = |health: (u16, &'static str), version: &'static str| async move {
        let core = server(move |path| match path {
            "/api/v1/health" => response(health.0, health.1),
            _ => response(200, version),
        })
        .await;
        probe().judge(&place(&core.url), &api(), &json!({})).await
    };
    let well = (200, r#"{"status":"ok"}"#);
    assert_eq!(said(well, r#"{"version":"1.9.6"}"#).await, Ok("1.9.6".into()));
    let unhealthy = said((500, "{}"), r#"{"version":"1.9.6"}"#).await;
    assert!(matches!(unhealthy, Err(Unfit::Unhealthy(_))), "{unhealthy:?}");
    let nameless = said(well, "{}").await;
    assert!(matches!(nameless, Err(Unfit::Nameless(_))), "{nameless:?}");
}

#[tokio::test]
async fn a_core_that_is_not_published_is_found_at_the_containers_own_address() {
    let Some(ip) = own_address() else { return };
    let (core, _) = counting("0.0.0.0:0", |_| response(200, WELCOME)).await;
    let other = server(|_| response(200, "<h1>Grafana</h1>")).await;
    let container = with_own(mapping(&[(80, other.port)]), ip, core.port);
    let expected = Url::parse(&format!("http://{ip}:{}/", core.port)).expect("a URL");
    assert_eq!(find(&container).await, Ok(expected.clone()));
    // And of one that lends its network.
    let engine = FakeEngine {
        inspections: [("vpn".to_owned(), with_own(json!({}), ip, 51820))].into(),
        ..FakeEngine::default()
    };
    let mut guest = with_own(json!({}), ip, core.port);
    guest["HostConfig"] = json!({"NetworkMode": "container:vpn"});
    guest["NetworkSettings"] = json!({"Ports": {}, "Networks": {}});
    let found = probe().find(&engine, &guest).await.map(|place| place.url);
    assert_eq!(found, Ok(expected));
}

#[tokio::test]
async fn while_a_published_port_answers_as_a_core_no_own_address_is_asked() {
    let Some(ip) = own_address() else { return };
    let (inside, asked) = counting("0.0.0.0:0", |_| response(200, WELCOME)).await;
    let core = core_that_says("1.9.6").await;
    let container = with_own(mapping(&[(80, core.port)]), ip, inside.port);
    assert_eq!(find(&container).await, Ok(core.url.clone()));
    assert_eq!(asked.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_web_server_before_a_core_that_is_down_is_told_from_no_core_at_all() {
    let front = server(|_| response(502, "<h1>Bad Gateway</h1>")).await;
    let silent = find(&mapping(&[(80, front.port)])).await.expect_err("its core is down");
    assert!(silent.is_behind_a_front(), "{silent}");
    let other = server(|_| response(404, "not here")).await;
    let silent = find(&mapping(&[(80, other.port)])).await.expect_err("no core");
    assert!(!silent.is_behind_a_front(), "{silent}");
}

#[tokio::test]
async fn while_nothing_answers_only_the_likeliest_place_is_asked_at_every_look() {
    const LOOKS: usize = 40;
    let (likeliest, asked) = counting("127.0.0.1:0", |_| response(404, "not yet")).await;
    // Speaks no HTTP at all, and would log each connection as an error.
    let (unlikely, disturbed) = counting("127.0.0.1:0", |_| b"E\0\0\0\x10SFATAL\0".to_vec()).await;
    let container = mapping(&[(80, likeliest.port), (9000, unlikely.port)]);
    let mut search = Search::new(probe());
    for _ in 0..LOOKS {
        search.look(&FakeEngine::default(), &container).await.expect_err("no core");
    }
    let (asked, disturbed) = (asked.load(Ordering::SeqCst), disturbed.load(Ordering::SeqCst));
    assert!(asked >= LOOKS, "{asked}");
    // By HTTP and by HTTPS, once for each of the few searches that fit into these looks.
    assert!((1..=LOOKS / 4).contains(&disturbed), "{disturbed}");
    let silent = search.look(&FakeEngine::default(), &container).await.expect_err("no core");
    assert!(silent.to_string().contains(unlikely.url.as_str()), "all that was heard: {silent}");
}

#[tokio::test]
async fn a_core_at_an_unlikely_place_is_found_and_asked_there_first_from_then_on() {
    let likeliest = server(|_| response(404, "not here")).await;
    let core = core_that_says("1.9.6").await;
    let container = mapping(&[(80, likeliest.port), (9000, core.port)]);
    let mut search = Search::new(probe());
    let engine = FakeEngine::default();
    let found = search.look_until_heard(&engine, &container).await.expect("it is there");
    assert_eq!(found.url, core.url);
    let found = search.look(&engine, &container).await.expect("without a search");
    assert_eq!(found.url, core.url);
    // Another container's core is looked for from the beginning.
    let mut other = mapping(&[(80, core.port)]);
    other["Id"] = json!("c2");
    let found = search.look(&engine, &other).await.expect("at its own likeliest place");
    assert_eq!(found.url, core.url);
}

#[tokio::test]
async fn a_place_where_a_web_server_waits_for_its_core_is_asked_at_every_look() {
    let likeliest = server(|_| response(404, "not here")).await;
    let (front, _) = counting("127.0.0.1:0", |number| match number {
        0..5 => response(502, "not yet"),
        _ => response(200, WELCOME),
    })
    .await;
    let container = mapping(&[(80, likeliest.port), (9000, front.port)]);
    let mut search = Search::new(probe());
    let engine = FakeEngine::default();
    let mut looks = 0;
    let found = loop {
        looks += 1;
        assert!(looks < 1000, "it was left to the rare searches");
        if let Ok(found) = search.look(&engine, &container).await {
            break found;
        }
    };
    assert_eq!(found.url, front.url);
}

#[tokio::test]
async fn a_likeliest_place_that_hangs_does_not_hide_the_core() {
    let hanging = serve(|_, connection| async move {
        let _held = connection;
        std::future::pending::<()>().await;
    })
    .await;
    let core = core_that_says("1.9.6").await;
    let container = mapping(&[(80, hanging.port), (9000, core.port)]);
    let found = find(&container).await.expect("the second in order");
    assert_eq!(found, core.url);
    let mut search = Search::new(probe());
    let found = search.look_until_heard(&FakeEngine::default(), &container).await;
    assert_eq!(found.map(|place| place.url), Ok(core.url.clone()));
}
