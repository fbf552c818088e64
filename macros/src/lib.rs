//! The attributes and the derive of Mobula: sugar over plain actix, and nothing that could not be written by hand.
//!
//! | macro                         | goes on                    | file                |
//! |-------------------------------|----------------------------|---------------------|
//! | [`macro@actor`]               | the actor's own `impl`     | `actor.rs`          |
//! | [`macro@task`]                | a plain function           | `task.rs`           |
//! | [`macro@main`]                | `async fn main`            | `main_fn.rs`        |
//! | [`macro@RemoteMessage`]       | a struct or an enum        | `remote_message.rs` |
//!
//! Use them through the `mobula` crate: what they generate names everything by paths that start with `::mobula`.
//! Names and schema hashes, by which nodes recognise types, are explained in `names.rs` and `schema.rs`.

mod actor;
mod actor_expansion;
mod attributes;
mod errors;
mod main_fn;
mod names;
mod remote_message;
mod schema;
mod signature;
mod task;

use proc_macro::TokenStream;

/// Turns an `impl` block into an actor that can be created and called from any node.
///
/// ```ignore
/// struct Counter { count: i64 }
///
/// #[mobula::actor]
/// impl Counter {
///     fn new(start: i64) -> Self { Counter { count: start } }
///     fn increment(&mut self, by: i64) -> i64 { self.count += by; self.count }
///     #[local]
///     fn helper(&self, text: &str) {}
/// }
///
/// let hits = cluster.spawn(Counter::actor(5)).await?;
/// let six = hits.increment(1).await?;
/// ```
///
/// The block itself stays as it is. Beside it appear
/// - `impl actix::Actor for Counter`, with `Context<Self>`;
/// - for each method with `&self` or `&mut self` a message, `CounterIncrement { by }`, and its `Handler`; both are as
///   visible as the method;
/// - the trait `CounterRef`, through which `ActorRef<Counter>` has the same methods. It is as visible as the most
///   visible method, and every method on it can be called where it is visible. A method whose return type is written
///   `Result<..>` gives a `FlatAsk`, one that returns `ReplyItems<..>` a `ReplyStream`, any other an `Ask`;
/// - `Counter::actor(..)`, with the arguments and the visibility of `new`, which describes an actor to spawn;
/// - `impl RemoteActor for Counter` and its registration.
///
/// # Methods that wait
/// A plain `fn` runs to its end before the actor takes its next message. Two other shapes may `.await`:
/// - `async fn` with `&self` runs on a clone of the actor, so the type is `Clone`, and many of them run at once,
///   beside all other messages. What they are to share lies in an `Arc` or `Rc` that the clone shares; a change of any
///   other field is lost with the clone. A panic answers its own call and ends no life of the actor;
/// - `async fn` with `&mut self` has the actor to itself: no other message is begun until it is done. Its state is taken
///   out meanwhile and the type's `Default` left in its place, which no method ever sees. A stop waits for it, a kill
///   does not; a panic ends the life, as in a plain method. Asking the own actor is answered `CallError::Deadlock`.
///
/// `this`, `current_node` and the deadline that nested asks inherit are as in a plain method, also after an `.await`.
///
/// # Streams of answers
/// A method that returns `ReplyItems<T>` answers with many items. It is a plain `fn`, for the items are made after it has
/// returned, beside the actor; what has to wait is done there. Its message is a `StreamMessage` with `T` as its item, and
/// on the reference it gives what `ask_stream` gives, a `ReplyStream<T>`. Two nodes that differ in `T` find out before the
/// first item.
///
/// ```ignore
/// fn count_to(&self, end: u64) -> ReplyItems<u64> {
///     ReplyItems::produce(move |mut sender| async move {
///         for number in 1..=end {
///             if sender.send(number).await.is_err() {
///                 break;
///             }
///         }
///     })
/// }
///
/// let mut numbers = counter.count_to(1_000_000);
/// while let Some(number) = numbers.next().await.transpose()? { /* .. */ }
/// ```
///
/// The type is recognised by its name, the last part of its path: of an alias with another name the macro knows nothing,
/// and another type called `ReplyItems` is taken for this one. It is the return type itself; where single items can fail,
/// `T` is a `Result`.
///
/// # Types
/// Arguments and results travel, so they are owned types that implement `Serialize` and `DeserializeOwned`; what `new`
/// takes is also `Clone + Send + Sync`, since a restart needs it again. Associated functions without `self`, other than
/// `new`, and methods marked `#[local]` are left alone. Doc comments and `#[cfg]` of a method are carried over.
///
/// # Options
/// - `manual_actor`: leaves out `impl actix::Actor`, so that you can write `started` and the others yourself;
/// - `name = "..."`: the actor's name between nodes; its messages' names are this and the method in camel case. Default
///   `"<package>::<Type>"`. Set it where two modules of one package have an actor of the same name.
#[proc_macro_attribute]
pub fn actor(options: TokenStream, item: TokenStream) -> TokenStream {
    actor::expand(options.into(), item.into()).into()
}

/// Lets a plain function be run on any node.
///
/// ```ignore
/// #[mobula::task]
/// fn square(x: u64) -> u64 { x * x }
///
/// let sixteen = cluster.submit(square::task(4)).await?;
/// let nine = square(3); // still a plain function
/// ```
///
/// Beside the function appear the struct `SquareTask`, which carries the arguments and implements `RemoteTask`, and
/// `square::task(..)`, which describes a call to submit; both are as visible as the function. Arguments are owned types
/// that implement `Serialize + DeserializeOwned + Clone + Send + Sync`, results the first two and `Send`.
///
/// # Options
/// - `name = "..."`: the task's name between nodes. Default `"<package>::<function>"`. Set it where two modules of one
///   package have a task of the same name.
#[proc_macro_attribute]
pub fn task(options: TokenStream, item: TokenStream) -> TokenStream {
    task::expand(options.into(), item.into()).into()
}

/// Runs `async fn main` in a driver; in a process started as a node, the process becomes the node instead.
///
/// ```ignore
/// #[mobula::main]
/// async fn main() -> mobula::Result<()> {
///     let cluster = Cluster::local(3).await?;
///     Ok(())
/// }
/// ```
///
/// The body may return `()`, an `ExitCode`, or a `Result` whose error can be displayed. It never runs in a node process.
#[proc_macro_attribute]
pub fn main(options: TokenStream, item: TokenStream) -> TokenStream {
    main_fn::expand(options.into(), item.into()).into()
}

/// Makes a struct or an enum a message: `actix::Message` and `RemoteMessage`. Its serde derives are yours.
///
/// ```ignore
/// #[derive(Serialize, Deserialize, RemoteMessage)]
/// #[rtype(result = "i64")]
/// struct Increment { by: i64 }
/// ```
///
/// # Attributes
/// - `#[rtype(result = "i64")]` or `#[rtype(i64)]`: the type of the reply. Default `()`;
/// - `#[remote(name = "...")]`: the message's name between nodes. Default `"<package>::<Type>"`.
#[proc_macro_derive(RemoteMessage, attributes(rtype, remote))]
pub fn remote_message(input: TokenStream) -> TokenStream {
    remote_message::expand(input.into()).unwrap_or_else(syn::Error::into_compile_error).into()
}
