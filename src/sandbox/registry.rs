//! A registry on loopback that knows the scenario's images and serves their manifests, so that
//! the product learns their sizes and digests as it does from a real one. No layer is ever served: the
//! make-believe engine makes its images itself.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::inspection;
use super::world::World;

/// The repository below the registry's address.
pub(super) const REPOSITORY: &str = "payramapp/payram";

/// Binds the port that an earlier run had, or any.
pub(super) async fn bind(wanted: Option<u16>) -> io::Result<TcpListener> {
    TcpListener::bind(("127.0.0.1", wanted.unwrap_or(0))).await
}

/// Serves manifests until told to stop.
pub(super) async fn serve(world: Arc<World>, listener: TcpListener, stop: CancellationToken) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => return,
        };
        let Ok((stream, _)) = accepted else { continue };
        let world = Arc::clone(&world);
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let reply = manifest(&world, &request);
                async move { Ok::<_, Infallible>(reply) }
            });
            let served = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service);
            // A client that goes away is no concern of a registry.
            let _ = served.await;
        });
    }
}

fn manifest(world: &World, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let tag = request.uri().path().strip_prefix(&format!("/v2/{REPOSITORY}/manifests/"));
    let release = tag.and_then(|tag| world.scenario.tags.get(tag));
    let (status, body) = match tag.zip(release) {
        Some((tag, release)) => (StatusCode::OK, inspection::manifest(tag, release)),
        None => {
            let unknown = json!({"errors": [{"code": "MANIFEST_UNKNOWN"}]});
            (StatusCode::NOT_FOUND, unknown.to_string())
        }
    };
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    response
}
