//! What of a listener may change while it is served. Every connection takes what counts when it is accepted, and keeps it.
//!
//! One short lock for each accepted connection. Tests: `tests/it/certificates.rs`.

use super::tls::{self, Loaded};
use super::{ListenerOptions, ProxyProtocol};
use http::HeaderValue;
use std::sync::{Arc, PoisonError, RwLock};

/// A listener's settings of the moment.
pub(super) struct Live(RwLock<Arc<Settings>>);

/// One state of a listener, with its certificates read.
pub(super) struct Settings {
    pub(super) tls: Option<Loaded>,
    pub(super) redirect: bool,
    pub(super) proxy_protocol: Option<ProxyProtocol>,
    pub(super) hsts: Option<HeaderValue>,
    options: ListenerOptions,
}

impl Live {
    pub(super) fn new(settings: Settings) -> Self {
        Self(RwLock::new(Arc::new(settings)))
    }

    pub(super) fn current(&self) -> Arc<Settings> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Reads the files that `options` name; nothing changes when one is wrong.
    pub(super) fn replace(&self, options: &ListenerOptions) -> Result<(), String> {
        let settings = Settings::load(options, Some(&self.current()))?;
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(settings);
        Ok(())
    }

    /// [`Self::replace`] with the same options: the files may say something else.
    pub(super) fn reload(&self) -> Result<(), String> {
        self.replace(&self.current().options)
    }
}

impl Settings {
    /// `before`: what need not change is taken over from there, so that clients can resume their TLS sessions.
    pub(super) fn load(options: &ListenerOptions, before: Option<&Self>) -> Result<Self, String> {
        let before = before.and_then(|before| before.tls.as_ref());
        let load = |tls| tls::for_listener(tls, options.client_auth.as_ref(), before);
        Ok(Self {
            tls: options.tls.as_ref().map(load).transpose()?,
            redirect: options.redirect_to_https,
            proxy_protocol: options.proxy_protocol.clone(),
            hsts: options.hsts.clone().filter(|_| options.tls.is_some()),
            options: options.clone(),
        })
    }
}
