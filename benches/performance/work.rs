//! How many cores work for whom while load is put on a server.

use crate::outcome::Unit;
use crate::samples::Samples;

/// Cores that worked for a server under load, on average.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Work {
    /// For the server.
    pub(crate) server: f64,
    /// For the generator of the load, and the stand-in for Meta.
    pub(crate) generator: f64,
    /// For the server and each request, in microseconds of one core.
    pub(crate) server_us: f64,
}

/// What work came to, as rows of a table.
#[derive(Debug, Default)]
pub(crate) struct Works {
    server: Samples,
    generator: Samples,
    server_us: Samples,
}

impl Works {
    pub(crate) const HEAD: [&'static str; 4] =
        ["cores that work", "for the server", "for generator and stand-in", "server, µs a request"];

    pub(crate) fn push(&mut self, work: Work) {
        self.server.push(work.server);
        self.generator.push(work.generator);
        self.server_us.push(work.server_us);
    }

    pub(crate) fn figures(&self) -> [String; 3] {
        [&self.server, &self.generator, &self.server_us].map(|it| Unit::Ratio.summary(it))
    }
}
