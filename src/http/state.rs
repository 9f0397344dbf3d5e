//! What every handler gets, and the keys that callers show.

use std::ops::Deref;
use std::sync::Arc;

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tokio_util::sync::CancellationToken;

use crate::alarm::LastHeard;
use crate::clock::Clock;
use crate::config::{ApiKey, Config};
use crate::delivery::Wakers;
use crate::delivery::status::StatusBoard;
use crate::http::body::BodyReader;
use crate::http::refused::RefusedHooks;
use crate::meta::signature::SignatureVerifier;
use crate::reader::backfill::Backfills;
use crate::reader::look_up::LookUps;
use crate::store::Store;
use crate::telemetry::Metrics;

/// Shared by all requests; each gets a pointer.
#[derive(Clone)]
pub struct AppState(Arc<Services>);

impl From<Services> for AppState {
    fn from(services: Services) -> Self {
        Self(Arc::new(services))
    }
}

impl Deref for AppState {
    type Target = Services;

    fn deref(&self) -> &Services {
        &self.0
    }
}

/// What requests are answered with.
pub struct Services {
    /// Settings.
    pub config: Arc<Config>,
    /// The store.
    pub store: Arc<dyn Store>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Metrics.
    pub metrics: Arc<Metrics>,
    /// How the datasets are doing.
    pub status: StatusBoard,
    /// When a delivery of the webhook was last verified.
    pub heard: LastHeard,
    /// Wakes the delivery workers.
    pub wakers: Wakers,
    /// Takes wishes to look for leads that nobody has told us of.
    pub look_ups: LookUps,
    /// Where looking for leads that the webhook lost is wished for.
    pub backfills: Backfills,
    /// Checks webhook signatures.
    pub verifier: SignatureVerifier,
    /// Which refusals of CRMs' webhooks were told.
    pub refused_hooks: RefusedHooks,
    /// Reads the bodies of requests, within bounds.
    pub bodies: BodyReader,
    /// Cancelled when the server is to stop.
    pub stop: CancellationToken,
    /// The keys of the API, configured or made.
    pub api_keys: Arc<Vec<ApiKey>>,
}

impl Services {
    /// The key that a caller shows, if it is one of ours.
    ///
    /// Every key is compared, each in constant time over digests of equal length, so the time it
    /// takes tells nothing about how near a guess came.
    pub fn api_key(&self, shown: &str) -> Option<&ApiKey> {
        let digest: [u8; 32] = Sha256::digest(shown.as_bytes()).into();
        self.api_keys.iter().fold(None, |found, key| {
            if bool::from(key.digest.ct_eq(&digest)) { Some(key) } else { found }
        })
    }
}

/// Whether two secrets are equal, in constant time whatever their lengths.
pub fn secrets_match(a: &str, b: &str) -> bool {
    Sha256::digest(a.as_bytes()).ct_eq(&Sha256::digest(b.as_bytes())).into()
}
