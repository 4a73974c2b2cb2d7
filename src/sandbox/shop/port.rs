//! The core's side of a published port: what it answers over HTTP, how slowly, and that it
//! answers nothing while it does not serve. Called by `world`, which binds the ports.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use super::Shop;

impl Shop {
    /// Accepts on a published port until the container ends. Before the core listens, a
    /// connection is closed again, as the engine's own proxy does.
    pub async fn accept(self: Arc<Self>, listener: TcpListener, until: CancellationToken) {
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = until.cancelled() => return,
            };
            if let Ok((stream, _)) = accepted
                && self.serves.load(Ordering::SeqCst)
            {
                let (shop, until) = (Arc::clone(&self), until.clone());
                tokio::spawn(async move {
                    tokio::select! {
                        () = shop.serve(stream) => {}
                        () = until.cancelled() => {}
                    }
                });
            }
        }
    }

    async fn serve(&self, stream: TcpStream) {
        if self.release.hangs {
            return std::future::pending().await;
        }
        let service = service_fn(|request: Request<Incoming>| {
            let path = request.uri().path().to_owned();
            async move {
                tokio::time::sleep(Duration::from_millis(self.release.answer_ms)).await;
                Ok::<_, std::convert::Infallible>(self.answer(&path))
            }
        });
        let served = hyper::server::conn::http1::Builder::new()
            .keep_alive(false)
            .serve_connection(TokioIo::new(stream), service);
        // A client that goes away is no concern of the shop.
        let _ = served.await;
    }

    fn answer(&self, path: &str) -> Response<Full<Bytes>> {
        let (status, text) = match path {
            _ if !self.serves.load(Ordering::SeqCst) => (503, "stopping\n".to_owned()),
            "/" => (200, "Welcome to Payram Core (make-believe)\n".to_owned()),
            "/api/v1/health" => self.health(),
            "/api/v1/version" => {
                let version = self.release.reports.as_ref().unwrap_or(&self.version);
                (200, serde_json::json!({"version": version}).to_string())
            }
            _ => (404, r#"{"error":"not found"}"#.to_owned()),
        };
        let mut response = Response::new(Full::from(text));
        *response.status_mut() =
            StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        response
    }

    fn health(&self) -> (u16, String) {
        let asked = self.asked_health.fetch_add(1, Ordering::SeqCst);
        let statuses = &self.release.health;
        let status = match self.lacks_its_file() {
            true => 500,
            false => statuses.get(asked).or(statuses.last()).copied().unwrap_or(200),
        };
        let word = if status == 200 { "ok" } else { "error" };
        (status, serde_json::json!({"status": word, "db": "ok"}).to_string())
    }
}
