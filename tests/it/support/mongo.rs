//! A `mongod` of the test's own: what is stored is looked at with the driver, not with the sidecar.

use super::mongod::Mongod;
use bson::{Document, doc};
use mongodb::{Client, Collection};
use std::net::SocketAddr;
use tokio::runtime::Runtime;

/// The database in its URL.
const NAME: &str = "app";

/// An empty database.
pub(crate) struct Database {
    server: SocketAddr,
    runtime: Runtime,
    sessions: Collection<Document>,
    _mongod: Mongod,
}

impl Database {
    pub(crate) fn fresh() -> Self {
        let mongod = Mongod::start();
        let url = mongod.url(NAME);
        let server = url.strip_prefix("mongodb://").unwrap().strip_suffix("/app").unwrap().parse().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let sessions = runtime.block_on(async {
            let client = Client::with_uri_str(url).await.unwrap();
            client.database(NAME).collection("sessions")
        });
        Self { server, runtime, sessions, _mongod: mongod }
    }

    pub(crate) fn server(&self) -> SocketAddr {
        self.server
    }

    /// Lines for `[store]`.
    pub(crate) fn store(&self) -> String {
        self.store_at(self.server)
    }

    /// The same over another address, such as a link's.
    pub(crate) fn store_at(&self, address: SocketAddr) -> String {
        format!("kind = \"mongodb\"\nurl = \"mongodb://{address}/{NAME}\"")
    }

    /// The stored document of a session.
    pub(crate) fn find(&self, sid: &str) -> Option<Document> {
        self.runtime.block_on(self.sessions.find_one(doc! { "_id": sid }).into_future()).unwrap()
    }

    /// How many documents there are.
    pub(crate) fn count(&self) -> u64 {
        self.runtime.block_on(self.sessions.count_documents(doc! {}).into_future()).unwrap()
    }

    /// What an Express app would have stored.
    pub(crate) fn insert(&self, document: Document) {
        self.runtime.block_on(self.sessions.insert_one(document).into_future()).unwrap();
    }
}
