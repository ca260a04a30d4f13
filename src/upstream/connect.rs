//! Opening a connection to an endpoint: TCP or unix socket, HTTP/1.1.

use super::pool::{Pool, PooledConnection};
use super::{Endpoint, UpstreamError};
use http_body::Body;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use std::rc::Rc;
use std::time::Duration;
use tokio::net::{TcpStream, UnixStream};

/// A connected endpoint.
type Socket = crate::socket::Socket<{ 32 * 1024 - 1 }>;

pub(super) async fn open<B>(
    endpoint: &Endpoint,
    deadline: Duration,
    max_response_head: usize,
    pool: &Rc<Pool<B>>,
) -> Result<PooledConnection<B>, UpstreamError>
where
    B: Body + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let connecting = async {
        match endpoint {
            Endpoint::Http { host, port } => {
                let stream = TcpStream::connect((host.as_str(), *port))
                    .await
                    .map_err(|error| UpstreamError::connect(format_args!("{host}:{port}: {error}")))?;
                // Without it a response head and its body can wait 40 ms for each other; failing to set it is no failure.
                let _ = stream.set_nodelay(true);
                handshake(Socket::Tcp(stream), max_response_head, pool).await
            }
            Endpoint::Unix(path) => {
                let stream = UnixStream::connect(path).await.map_err(|error| {
                    UpstreamError::connect(format_args!("unix:{}: {error}", path.display()))
                })?;
                handshake(Socket::Unix(stream), max_response_head, pool).await
            }
        }
    };
    tokio::time::timeout(deadline, connecting).await.unwrap_or_else(|_| {
        Err(UpstreamError::connect_timeout(format_args!("{endpoint} within timeouts.connect")))
    })
}

async fn handshake<B>(
    socket: Socket,
    max_response_head: usize,
    pool: &Rc<Pool<B>>,
) -> Result<PooledConnection<B>, UpstreamError>
where
    B: Body + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let (sender, connection) = http1::Builder::new()
        .max_buf_size(max_response_head)
        // The trailers' limit too, which would otherwise be 16 KiB: an update may come there.
        .max_header_size(max_response_head)
        .handshake(TokioIo::new(socket))
        .await
        .map_err(UpstreamError::connect)?;
    // The connection reads and writes on its own; it ends when its sender is dropped or the app closes.
    tokio::task::spawn_local(connection.with_upgrades());
    Ok(pool.adopt(sender))
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Http { host, port } if host.contains(':') => write!(f, "http://[{host}]:{port}"),
            Self::Http { host, port } => write!(f, "http://{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}
