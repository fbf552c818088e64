//! `#[mobula::actor]`: reads the `impl` block, refuses what cannot be called from afar.
//!
//! What is generated from an [`ActorBlock`] is in `actor_expansion.rs`.

use proc_macro2::{Ident, TokenStream};
use quote::{ToTokens, quote};
use syn::{
    Attribute, FnArg, ImplItem, ImplItemFn, Item, ItemImpl, PathArguments, ReceiverKind, ReturnType, Signature, Type,
    Visibility,
};

use crate::{
    actor_expansion,
    attributes::{Carried, Options, refuse_cfg},
    errors::Errors,
    names::message_ident,
    signature::{Arg, Role, check_qualifiers, is_result, items_of, read_args, read_reply, replace_self},
};

/// Everything that the expansion needs to know about the user's `impl` block.
pub(crate) struct ActorBlock {
    pub(crate) options: Options,
    pub(crate) ident: Ident,
    /// The type as the user wrote it after `impl`.
    pub(crate) ty: TokenStream,
    pub(crate) constructor: Constructor,
    pub(crate) methods: Vec<Method>,
}

/// The function named `new`.
pub(crate) struct Constructor {
    pub(crate) vis: Visibility,
    pub(crate) args: Vec<Arg>,
    pub(crate) docs: Carried,
}

/// A method that can be called from another node.
pub(crate) struct Method {
    pub(crate) carried: Carried,
    pub(crate) vis: Visibility,
    pub(crate) ident: Ident,
    pub(crate) message: Ident,
    pub(crate) args: Vec<Arg>,
    pub(crate) reply: TokenStream,
    pub(crate) shape: Shape,
    pub(crate) answer: Answer,
}

/// What the method of the reference gives.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    /// An `Ask`.
    One,
    /// A `FlatAsk`, of a `Result`.
    Fallible,
    /// A `ReplyStream` of items of this type.
    Items(TokenStream),
}

impl Answer {
    fn of(sig: &Signature, reply: &Type, actor: &TokenStream, errors: &mut Errors) -> Answer {
        let Some(item) = items_of(reply, errors) else {
            return if is_result(reply) { Answer::Fallible } else { Answer::One };
        };
        if let Some(asyncness) = &sig.asyncness {
            errors.refuse(
                asyncness,
                "a method that answers with a stream cannot be `async`: make it a plain `fn`, and do what has to wait \
                 where the items are made, in `ReplyItems::produce(|mut sender| async move { .. })`; or mark the method \
                 `#[local]`",
            );
        }
        Answer::Items(replace_self(item.to_token_stream(), actor))
    }
}

/// How a method runs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Shape {
    /// `fn`: to its end, in one go.
    Plain,
    /// `async fn` with `&self`: on a clone, beside all others.
    Concurrent,
    /// `async fn` with `&mut self`: alone, with the state taken out.
    Exclusive,
}

impl Shape {
    fn of(sig: &Signature) -> Shape {
        let mutable =
            sig.receiver().is_some_and(|receiver| matches!(receiver.kind, ReceiverKind::Reference(_, _, Some(_))));
        match sig.asyncness {
            None => Shape::Plain,
            Some(_) if mutable => Shape::Exclusive,
            Some(_) => Shape::Concurrent,
        }
    }
}

/// Methods of `ActorRef` itself: they would hide the generated ones of the same name.
const NAMES_OF_ACTOR_REF: &[&str] = &[
    "ask",
    "ask_stream",
    "tell",
    "tell_acked",
    "try_tell",
    "monitor",
    "monitor_into",
    "link",
    "unlink",
    "address",
    "watch_restarts",
    "stop",
    "stop_gracefully",
    "kill",
    "node",
    "id",
    "is_local",
    "with_deadline",
    "without_deadline",
    "clone",
];

/// With errors, only the user's block is left, so that no error follows from another.
pub(crate) fn expand(options: TokenStream, item: TokenStream) -> TokenStream {
    let mut block = match syn::parse2(item) {
        Ok(Item::Impl(block)) => block,
        Ok(other) => {
            let message = "`#[mobula::actor]` goes on the `impl` block that holds the actor's `new` and its methods";
            let error = syn::Error::new_spanned(&other, message).into_compile_error();
            return quote!(#other #error);
        }
        Err(error) => return error.into_compile_error(),
    };
    let actor = read(options, &block);
    remove_local_marks(&mut block);
    match actor {
        Ok(actor) => actor_expansion::tokens(&block, &actor),
        Err(errors) => {
            let errors = errors.into_compile_error();
            quote!(#block #errors)
        }
    }
}

fn read(options: TokenStream, block: &ItemImpl) -> syn::Result<ActorBlock> {
    let mut errors = Errors::default();
    let options = Options::parse_actor(options).unwrap_or_else(|error| {
        errors.push(error);
        Options::default()
    });
    let Some(ident) = read_header(block, &mut errors) else {
        return Err(errors.with(&block.self_ty, "a remote actor is a struct or an enum: write its name here"));
    };
    let ty = block.self_ty.to_token_stream();
    let (mut constructor, mut methods) = (None, Vec::new());
    for function in block.items.iter().filter_map(as_fn) {
        let sig = &function.sig;
        if sig.ident == "actor" {
            errors.refuse(&sig.ident, "`#[mobula::actor]` generates a function of this name: choose another");
        } else if sig.ident == "new" {
            constructor = Some(read_constructor(function, block, &mut errors));
        } else if sig.receiver().is_some() && !is_local(function) {
            methods.push(read_method(function, &ident, &ty, &mut errors));
        }
    }
    let Some(constructor) = constructor else {
        let message =
            format!("other nodes need a constructor to create the actor: add `fn new(..) -> Self` to `{ident}`");
        return Err(errors.with(&block.self_ty, message));
    };
    errors.finish()?;
    Ok(ActorBlock { options, ident, ty, constructor, methods })
}

/// The actor's name, if the block is one that `#[mobula::actor]` can be on.
fn read_header(block: &ItemImpl, errors: &mut Errors) -> Option<Ident> {
    refuse_cfg(&block.attrs, "above `#[mobula::actor]`", errors);
    if let Some((path, _)) = &block.trait_ {
        errors.refuse(path, "`#[mobula::actor]` goes on the actor's own `impl` block, not on that of a trait");
    }
    if !block.generics.params.is_empty() {
        let message =
            "a remote actor cannot be generic: its name stands for one type on every node; write out the types";
        errors.refuse(&block.generics, message);
    }
    let mut ty = &*block.self_ty;
    while let Type::Group(group) = ty {
        ty = &group.elem;
    }
    let Type::Path(path) = ty else { return None };
    let last = path.path.segments.last().filter(|_| path.qself.is_none())?;
    if block.generics.params.is_empty() && !matches!(last.arguments, PathArguments::None) {
        let message = "a remote actor cannot have generic arguments: wrap the type in a struct with a name of its own";
        errors.refuse(&last.arguments, message);
    }
    Some(last.ident.clone())
}

fn read_constructor(function: &ImplItemFn, block: &ItemImpl, errors: &mut Errors) -> Constructor {
    let sig = &function.sig;
    refuse_cfg(&function.attrs, "above `#[mobula::actor]` on the whole block", errors);
    if let Some(mark) = function.attrs.iter().find(|attr| is_local_mark(attr)) {
        errors.refuse(mark, "`new` is how other nodes create the actor and cannot be local: remove `#[local]`");
    }
    if let Some(receiver) = sig.receiver() {
        errors.refuse(receiver, "`new` creates the actor, so there is no `self` yet: remove it, or rename the method");
    }
    check_qualifiers(sig, Role::Constructor, errors);
    let message = "`new` returns `Self`: do what can fail in the first message, or before the actor is spawned";
    match &sig.output {
        ReturnType::Default => errors.refuse(&sig.ident, message),
        ReturnType::Type(_, ty) if **ty == syn::parse_quote!(Self) || *ty == block.self_ty => {}
        ReturnType::Type(_, ty) => errors.refuse(ty, message),
    }
    let args = own_types(read_args(sig, Role::Constructor, errors), &block.self_ty.to_token_stream());
    Constructor { vis: function.vis.clone(), args, docs: Carried::of(&function.attrs) }
}

fn read_method(function: &ImplItemFn, actor: &Ident, ty: &TokenStream, errors: &mut Errors) -> Method {
    let (sig, ident) = (&function.sig, function.sig.ident.clone());
    if let Some(FnArg::Receiver(receiver)) = sig.inputs.first() {
        match &receiver.kind {
            ReceiverKind::Reference(..) => {}
            ReceiverKind::Value => errors.refuse(
                receiver,
                "a remote method cannot consume the actor: take `&self` or `&mut self`, or mark the method `#[local]`",
            ),
            _ => errors.refuse(receiver, "write this as `&self` or `&mut self`, or mark the method `#[local]`"),
        }
    }
    if NAMES_OF_ACTOR_REF.iter().any(|name| ident == name) {
        let message = format!(
            "`ActorRef` has its own `{ident}`, which would be called instead: choose another name, or mark the method `#[local]`"
        );
        errors.refuse(&ident, message);
    }
    check_qualifiers(sig, Role::Method, errors);
    let args = own_types(read_args(sig, Role::Method, errors), ty);
    let reply = read_reply(sig, Role::Method, errors);
    Method {
        carried: Carried::of(&function.attrs),
        vis: function.vis.clone(),
        message: message_ident(actor, &ident),
        ident,
        args,
        shape: Shape::of(sig),
        answer: Answer::of(sig, &reply, ty, errors),
        reply: replace_self(reply.into_token_stream(), ty),
    }
}

fn own_types(args: Vec<Arg>, actor: &TokenStream) -> Vec<Arg> {
    args.into_iter().map(|Arg { ident, ty }| Arg { ident, ty: replace_self(ty, actor) }).collect()
}

fn as_fn(item: &ImplItem) -> Option<&ImplItemFn> {
    match item {
        ImplItem::Fn(function) => Some(function),
        _ => None,
    }
}

fn is_local(function: &ImplItemFn) -> bool {
    function.attrs.iter().any(is_local_mark)
}

fn is_local_mark(attr: &Attribute) -> bool {
    attr.path().is_ident("local")
}

fn remove_local_marks(block: &mut ItemImpl) {
    for item in &mut block.items {
        if let ImplItem::Fn(function) = item {
            function.attrs.retain(|attr| !is_local_mark(attr));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expansion(source: &str) -> String {
        expand(TokenStream::new(), syn::parse_str(source).expect("tokens")).to_string()
    }

    /// The texts of the errors in an expansion.
    fn errors_of(options: TokenStream, source: &str) -> Vec<String> {
        let block = syn::parse_str(source).expect("an impl block");
        let error = read(options, &block).err();
        error.into_iter().flatten().map(|error| error.to_string()).collect()
    }

    #[test]
    fn each_refusal_says_what_to_do() {
        for (source, text) in [
            ("impl Counter { fn get(&self) {} }", "add `fn new(..) -> Self` to `Counter`"),
            ("impl Counter { fn new() {} }", "`new` returns `Self`"),
            ("impl Counter { fn new() -> Result<Self, E> {} }", "`new` returns `Self`"),
            ("impl Counter { async fn new() -> Self {} }", "do what has to wait in `Actor::started`"),
            ("impl Counter { fn new(&self) -> Self {} }", "there is no `self` yet"),
            ("impl Counter { #[local] fn new() -> Self {} }", "remove `#[local]`"),
            ("impl Counter { #[cfg(test)] fn new() -> Self {} }", "on the whole block"),
            ("impl Counter { fn new(s: &str) -> Self {} }", "take `String` instead of `&str`"),
            ("#[cfg(test)] impl Counter { fn new() -> Self {} }", "above `#[mobula::actor]`"),
            ("impl Counter { fn new() -> Self {} fn actor() {} }", "choose another"),
            ("impl Counter { fn new() -> Self {} #[local] fn actor(&self) {} }", "choose another"),
            ("impl Counter { fn new() -> Self {} async fn f(&self, s: &str) {} }", "take `String` instead of `&str`"),
            ("impl Counter { fn new() -> Self {} async fn f(self) {} }", "cannot consume the actor"),
            ("impl Counter { fn new() -> Self {} async fn f<T>(&mut self) {} }", "write out the types, or mark"),
            ("impl Counter { fn new() -> Self {} fn f<T>(&self) {} }", "write out the types, or mark"),
            ("impl Counter { fn new() -> Self {} fn f(&self, s: &str) {} }", "`&str`, or mark the method `#[local]`"),
            ("impl Counter { fn new() -> Self {} fn f(self) {} }", "cannot consume the actor"),
            ("impl Counter { fn new() -> Self {} fn f(self: Box<Self>) {} }", "write this as `&self`"),
            ("impl Counter { fn new() -> Self {} fn id(&self) {} }", "`ActorRef` has its own `id`"),
            (
                "impl Counter { fn new() -> Self {} async fn f(&self) -> ReplyItems<u8> {} }",
                "make it a plain `fn`, and",
            ),
            ("impl Counter { fn new() -> Self {} async fn f(&mut self) -> m::ReplyItems<u8> {} }", "cannot be `async`"),
            ("impl Counter { fn new() -> Self {} fn f(&self) -> ReplyItems {} }", "the type of its items"),
            ("impl Counter { fn new() -> Self {} fn f(&self) -> ReplyItems<&str> {} }", "return `String`"),
            ("impl Clone for Counter { fn new() -> Self {} }", "not on that of a trait"),
            ("impl<T> Counter<T> { fn new() -> Self {} }", "a remote actor cannot be generic"),
            ("impl Counter<u8> { fn new() -> Self {} }", "a remote actor cannot have generic arguments"),
            ("impl (u8, u8) { fn new() -> Self {} }", "a struct or an enum"),
        ] {
            let errors = errors_of(TokenStream::new(), source);
            assert_eq!(errors.len(), 1, "{source}: {errors:?}");
            assert!(errors[0].contains(text), "{source}: {errors:?}");
        }
    }

    #[test]
    fn several_errors_are_told_at_once() {
        let source = "impl Counter { async fn f(&self, s: &str) {} fn g(self) {} }";
        assert_eq!(errors_of(quote!(unknown), source).len(), 4);
    }

    #[test]
    fn errors_leave_the_block_without_its_marks() {
        let tokens = expansion("impl Counter { #[local] fn f(&self) {} }");
        let expected = quote!(impl Counter { fn f(&self) {} } ::core::compile_error!).to_string();
        assert!(tokens.starts_with(&expected), "{tokens}");
        assert!(expansion("struct Counter;").starts_with("struct Counter ; :: core :: compile_error"));
    }

    #[test]
    fn a_methods_shape_is_read_from_async_and_self() {
        let source = "impl Counter {
            fn new() -> Self { Counter }
            fn plain(&mut self) {}
            async fn beside(&self) {}
            async fn alone(&mut self) {}
            #[local] async fn helper<T>(self, t: &T) {}
        }";
        let actor = read(TokenStream::new(), &syn::parse_str(source).expect("an impl block")).expect("an actor");
        let shapes: Vec<_> = actor.methods.iter().map(|method| method.shape).collect();
        assert_eq!(shapes, [Shape::Plain, Shape::Concurrent, Shape::Exclusive]);
    }

    #[test]
    fn what_may_stay_in_the_block() {
        let source = "impl shop::Counter {
            const MAX: u8 = 3;
            fn new(mut a: u8) -> shop::Counter { loop {} }
            fn helper(x: &str) {}
            #[local] fn inside<T>(&self, t: &T) {}
            fn get(&self) {}
        }";
        let actor = read(TokenStream::new(), &syn::parse_str(source).expect("an impl block")).expect("an actor");
        assert_eq!(actor.ident, "Counter");
        assert_eq!(actor.methods.iter().map(|method| method.message.to_string()).collect::<Vec<_>>(), ["CounterGet"]);
    }
}
