//! Tests the engine over a real store.
