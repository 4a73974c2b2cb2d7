//! A server on loopback that answers each request by its first line; for unit tests only.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// Answers until it is dropped.
pub(super) struct FakeEngine {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl FakeEngine {
    /// Serves what `answers` makes of a request's first line, verbatim, then closes.
    pub(super) async fn start(answers: impl Fn(&str) -> String + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("its address");
        let answers = Arc::new(answers);
        let task = tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                let answers = Arc::clone(&answers);
                tokio::spawn(async move { serve(connection, answers.as_ref()).await });
            }
        });
        Self { address, task }
    }

    /// `127.0.0.1:PORT`
    pub(super) fn address(&self) -> String {
        self.address.to_string()
    }

    /// `tcp://127.0.0.1:PORT`
    pub(super) fn endpoint(&self) -> String {
        format!("tcp://{}", self.address)
    }
}

impl Drop for FakeEngine {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(mut connection: TcpStream, answers: &(dyn Fn(&str) -> String + Send + Sync)) {
    let mut request = Vec::new();
    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
        match connection.read_buf(&mut request).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
    }
    let request = String::from_utf8_lossy(&request).into_owned();
    let answer = answers(request.lines().next().unwrap_or_default());
    // A client that went away is the test's business.
    let _ = connection.write_all(answer.as_bytes()).await;
    let _ = connection.shutdown().await;
}

/// A whole HTTP answer that ends with the connection.
pub(super) fn answer(status: u16, headers: &[&str], body: &str) -> String {
    let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
    format!("HTTP/1.1 {status} Any\r\nConnection: close\r\n{headers}\r\n{body}")
}
