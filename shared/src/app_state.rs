//! State of a service's handlers, as one reference count.

/// Declares `StateParts`, with the given fields, and `AppState`, which holds it. A handler may ask for each field by its type.
///
/// A clone of `AppState` costs one reference count however many fields there are: each layer of middleware makes one for each
/// request.
#[macro_export]
macro_rules! app_state {
    ($($field:ident: $part:ty,)+) => {
        /// Everything that a handler may ask for, by its type.
        #[derive(Clone, Debug)]
        pub(crate) struct AppState(::std::sync::Arc<StateParts>);

        /// Parts of the state.
        #[derive(Debug)]
        pub(crate) struct StateParts {
            $(pub(crate) $field: $part,)+
        }

        impl AppState {
            pub(crate) fn new(parts: StateParts) -> Self {
                Self(::std::sync::Arc::new(parts))
            }
        }

        impl ::std::ops::Deref for AppState {
            type Target = StateParts;

            fn deref(&self) -> &StateParts {
                &self.0
            }
        }

        $(impl ::axum::extract::FromRef<AppState> for $part {
            fn from_ref(state: &AppState) -> Self {
                state.$field.clone()
            }
        })+
    };
}
