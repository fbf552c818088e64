//! What `#[mobula::actor]` generates beside the user's `impl` block.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::{ItemImpl, Visibility};

use crate::{
    actor::{ActorBlock, Answer, Method, Shape},
    names::{camel_case, ref_trait_ident, wire_name},
    schema,
};

pub(crate) fn tokens(block: &ItemImpl, actor: &ActorBlock) -> TokenStream {
    let parts = [actix_actor(actor), ref_trait(actor), description(actor), remote_actor(actor)];
    let messages = actor.methods.iter().map(|method| message(actor, method));
    quote!(#block #(#parts)* #(#messages)*)
}

fn actix_actor(ActorBlock { options, ty, .. }: &ActorBlock) -> TokenStream {
    if options.manual_actor {
        return TokenStream::new();
    }
    quote! {
        impl ::mobula::actix::Actor for #ty {
            type Context = ::mobula::actix::Context<Self>;
        }
    }
}

/// The message of one method, and the handler that runs the method.
fn message(actor: &ActorBlock, method: &Method) -> TokenStream {
    let ActorBlock { options, ident: actor_ident, ty, .. } = actor;
    let Method { carried, vis, ident, message, args, reply, answer, .. } = method;
    let cfgs = &carried.cfgs;
    let docs = carried.docs_after(&format!("Asks a `{actor_ident}` to run `{ident}`."));
    let (names, types): (Vec<_>, Vec<_>) = args.iter().map(|arg| (&arg.ident, &arg.ty)).unzip();
    let field_docs = names.iter().map(|name| format!("The argument `{name}`."));
    let body = match args.is_empty() {
        true => quote!(;),
        false => quote!({ #(#[doc = #field_docs] #vis #names: #types,)* }),
    };
    let name = wire_name(options.name.as_ref(), actor_ident, &camel_case(ident));
    let schema = schema::of_args(args, reply);
    let (response, run) = response(method);
    let (reply, stream) = match answer {
        Answer::One | Answer::Fallible => (reply.clone(), TokenStream::new()),
        Answer::Items(item) => {
            let stream = quote! {
                #(#cfgs)*
                impl ::mobula::StreamMessage for #message {
                    type Item = #item;
                }
            };
            (quote!(()), stream)
        }
    };
    quote! {
        #(#cfgs)*
        #docs
        #[allow(missing_debug_implementations, unreachable_pub)]
        #[derive(::mobula::serde::Serialize, ::mobula::serde::Deserialize)]
        #[serde(crate = "::mobula::serde")]
        #vis struct #message #body

        #(#cfgs)*
        impl ::mobula::actix::Message for #message {
            type Result = #reply;
        }

        #(#cfgs)*
        impl ::mobula::RemoteMessage for #message {
            const NAME: &'static str = #name;
            const SCHEMA: u64 = #schema;
            type Reply = #reply;
        }

        #stream

        #(#cfgs)*
        impl ::mobula::actix::Handler<#message> for #ty {
            type Result = #response;

            #[allow(deprecated, clippy::unit_arg, clippy::used_underscore_binding)]
            fn handle(&mut self, message: #message, _: &mut Self::Context) -> Self::Result {
                let #message { #(#names),* } = message;
                #run
            }
        }
    }
}

/// The type that the handler answers with, and the expression that runs the method.
fn response(Method { ident, args, shape, message, answer, .. }: &Method) -> (TokenStream, TokenStream) {
    let names = args.iter().map(|arg| &arg.ident);
    if let Answer::Items(item) = answer {
        return (quote!(::mobula::ReplyItems<#item>), quote!(Self::#ident(self #(, #names)*)));
    }
    // What the shape asks of the actor's type is missed where the method is.
    let at = ident.span();
    match shape {
        Shape::Plain => {
            let run = quote!(::mobula::actix::MessageResult(Self::#ident(self #(, #names)*)));
            (quote!(::mobula::actix::MessageResult<#message>), run)
        }
        Shape::Concurrent => {
            let on_clone = quote_spanned!(at=> ::mobula::shapes::Concurrent::on_clone_of);
            let run = quote! {
                #on_clone(self, move |actor: Self| async move { Self::#ident(&actor #(, #names)*).await })
            };
            (quote!(::mobula::shapes::Concurrent<#message>), run)
        }
        Shape::Exclusive => {
            let on_state = quote_spanned!(at=> ::mobula::shapes::Exclusive::on_state_of);
            let run = quote! {
                #on_state(self, move |mut actor: Self| async move {
                    (Self::#ident(&mut actor #(, #names)*).await, actor)
                })
            };
            (quote!(::mobula::shapes::Exclusive<Self, #message>), run)
        }
    }
}

/// The methods of the actor on its `ActorRef`.
fn ref_trait(actor: &ActorBlock) -> TokenStream {
    let ActorBlock { ident: actor_ident, ty, constructor, methods, .. } = actor;
    let vis = methods.iter().map(|method| &method.vis).max_by_key(|vis| breadth(vis)).unwrap_or(&constructor.vis);
    let trait_ident = ref_trait_ident(actor_ident);
    let docs = format!("The methods of a `{actor_ident}`, called through its `ActorRef` wherever the actor runs.");
    let (mut declared, mut implemented) = (Vec::new(), Vec::new());
    for Method { carried, ident, message, args, answer, .. } in methods {
        let cfgs = &carried.cfgs;
        let (returns, ask, given) = match answer {
            Answer::One => (quote!(Ask<#message>), quote!(ask), "future"),
            Answer::Fallible => (quote!(FlatAsk<#message>), quote!(ask), "future"),
            Answer::Items(item) => (quote!(ReplyStream<#item>), quote!(ask_stream), "stream"),
        };
        let flatten = matches!(answer, Answer::Fallible).then(|| quote!(.flatten()));
        let docs = carried.docs_before(
            &format!("Sent at once, even if the returned {given} is never polled."),
            &format!("Asks the actor to run `{ident}`."),
        );
        let (names, types): (Vec<_>, Vec<_>) = args.iter().map(|arg| (&arg.ident, &arg.ty)).unzip();
        let sig = quote!(fn #ident(&self, #(#names: #types),*) -> ::mobula::#returns);
        declared.push(quote!(#(#cfgs)* #docs #sig;));
        implemented.push(quote! {
            #(#cfgs)*
            #sig {
                ::mobula::ActorRef::#ask(self, #message { #(#names),* }) #flatten
            }
        });
    }
    quote! {
        #[doc = #docs]
        // `private_interfaces`: the message of a private method, beside public ones.
        #[allow(dead_code, private_interfaces, unreachable_pub)]
        #[allow(clippy::len_without_is_empty, clippy::too_many_arguments, clippy::wrong_self_convention)]
        #vis trait #trait_ident {
            #(#declared)*
        }

        #[allow(clippy::too_many_arguments, clippy::used_underscore_binding)]
        impl #trait_ident for ::mobula::ActorRef<#ty> {
            #(#implemented)*
        }
    }
}

/// `Counter::actor(..)`.
fn description(ActorBlock { ident, ty, constructor, .. }: &ActorBlock) -> TokenStream {
    let vis = &constructor.vis;
    let (names, types): (Vec<_>, Vec<_>) = constructor.args.iter().map(|arg| (&arg.ident, &arg.ty)).unzip();
    let docs =
        constructor.docs.docs_after(&format!("Describes a `{ident}` to spawn, which its node creates with `new`."));
    quote! {
        #[allow(dead_code, unreachable_pub, clippy::too_many_arguments, clippy::used_underscore_binding)]
        impl #ty {
            #docs
            #vis fn actor(#(#names: #types),*) -> ::mobula::ActorSpec<Self> {
                <Self as ::mobula::RemoteActor>::spec((#(#names,)*))
            }
        }
    }
}

/// How other nodes create the actor and find its messages.
fn remote_actor(ActorBlock { options, ident, ty, constructor, methods }: &ActorBlock) -> TokenStream {
    let (names, types): (Vec<_>, Vec<_>) = constructor.args.iter().map(|arg| (&arg.ident, &arg.ty)).unzip();
    let name = wire_name(options.name.as_ref(), ident, "");
    let schema = schema::of_args(&constructor.args, &TokenStream::new());
    let accepts = methods.iter().map(|Method { carried, message, .. }| {
        let cfgs = &carried.cfgs;
        quote!(#(#cfgs)* table.accept::<#message>();)
    });
    quote! {
        impl ::mobula::RemoteActor for #ty {
            const NAME: &'static str = #name;
            const SCHEMA: u64 = #schema;
            type Args = (#(#types,)*);

            #[allow(deprecated, clippy::used_underscore_binding)]
            fn make(args: Self::Args) -> Self {
                let (#(#names,)*) = args;
                Self::new(#(#names),*)
            }

            #[allow(unused_variables)]
            fn messages(table: &mut ::mobula::MessageTable<Self>) {
                #(#accepts)*
            }
        }

        ::mobula::register_actor!(#ty);
    }
}

/// Orders visibilities. Of two restricted to paths, neither is known to be the wider.
fn breadth(vis: &Visibility) -> u8 {
    match vis {
        Visibility::Public(_) => 3,
        Visibility::Restricted(restricted) if restricted.path.is_ident("crate") => 2,
        Visibility::Restricted(restricted) if restricted.path.is_ident("self") => 0,
        Visibility::Restricted(_) => 1,
        Visibility::Inherited => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::actor::expand;

    #[track_caller]
    fn assert_parts(tokens: TokenStream, parts: &[TokenStream]) {
        let tokens = tokens.to_string();
        for part in parts {
            assert!(tokens.contains(&part.to_string()), "{part} is not in {tokens}");
        }
    }

    fn counter() -> TokenStream {
        quote! {
            impl Counter {
                pub fn new(start: i64) -> Self { Counter { count: start } }
                pub fn increment(&mut self, by: i64) -> i64 { self.count += by; self.count }
                #[cfg(feature = "share")]
                fn share(&self, with: Vec<Self>) -> Result<u8, Full> { Ok(1) }
            }
        }
    }

    #[test]
    fn a_method_becomes_a_message_with_a_handler() {
        let parts = [
            counter(),
            quote!(impl ::mobula::actix::Actor for Counter { type Context = ::mobula::actix::Context<Self>; }),
            quote!(
                pub struct CounterIncrement {
                    #[doc = "The argument `by`."]
                    pub by: i64,
                }
            ),
            quote!(impl ::mobula::actix::Message for CounterIncrement { type Result = i64; }),
            quote!(
                const NAME: &'static str = ::core::concat!(::core::env!("CARGO_PKG_NAME"), "::", "CounterIncrement");
            ),
            quote!(
                type Reply = i64;
            ),
            quote!(impl ::mobula::actix::Handler<CounterIncrement> for Counter),
            quote!(let CounterIncrement { by } = message;
                ::mobula::actix::MessageResult(Self::increment(self, by))),
        ];
        assert_parts(expand(quote!(), counter()), &parts);
    }

    #[test]
    fn async_methods_answer_with_their_shape() {
        let block = quote! {
            impl Counter {
                fn new() -> Self { Counter }
                async fn look_up(&self, key: u8) -> u8 { key }
                async fn transfer(&mut self, to: u8) -> Result<u8, Full> { Ok(to) }
            }
        };
        let parts = [
            quote!(
                type Result = ::mobula::shapes::Concurrent<CounterLookUp>;
            ),
            quote!(::mobula::shapes::Concurrent::on_clone_of(self, move |actor: Self| async move {
                Self::look_up(&actor, key).await
            })),
            quote!(
                type Result = ::mobula::shapes::Exclusive<Self, CounterTransfer>;
            ),
            quote!(::mobula::shapes::Exclusive::on_state_of(self, move |mut actor: Self| async move {
                (Self::transfer(&mut actor, to).await, actor)
            })),
            quote!(
                fn look_up(&self, key: u8) -> ::mobula::Ask<CounterLookUp>;
            ),
            quote!(
                fn transfer(&self, to: u8) -> ::mobula::FlatAsk<CounterTransfer>;
            ),
        ];
        assert_parts(expand(quote!(), block), &parts);
    }

    #[test]
    fn a_method_that_returns_items_answers_with_a_stream() {
        let block = quote! {
            impl Counter {
                fn new() -> Self { Counter }
                #[cfg(feature = "count")]
                fn count(&mut self, to: u8) -> mobula::ReplyItems<[Self; 2]> { items(to) }
            }
        };
        let expansion = expand(quote!(), block);
        let cfgs = expansion.to_string().matches("# [cfg (feature = \"count\")]").count();
        // As of any method, and the message's impl as one of a stream.
        assert_eq!(cfgs, 9);
        let parts = [
            quote!(impl ::mobula::actix::Message for CounterCount { type Result = (); }),
            quote!(
                type Reply = ();
            ),
            quote!(impl ::mobula::StreamMessage for CounterCount { type Item = [Counter; 2]; }),
            quote!(
                type Result = ::mobula::ReplyItems<[Counter; 2]>;
            ),
            quote!(let CounterCount { to } = message;
                Self::count(self, to)),
            quote!(
                fn count(&self, to: u8) -> ::mobula::ReplyStream<[Counter; 2]>;
            ),
            quote!({ ::mobula::ActorRef::ask_stream(self, CounterCount { to }) }),
            quote!(table.accept::<CounterCount>();),
            quote!("Sent at once, even if the returned stream is never polled."),
        ];
        assert_parts(expansion, &parts);
    }

    #[test]
    fn the_ref_trait_has_the_widest_visibility_and_flattens_results() {
        let parts = [
            quote!(pub trait CounterRef),
            quote!(
                fn increment(&self, by: i64) -> ::mobula::Ask<CounterIncrement>;
            ),
            quote!(
                fn share(&self, with: Vec<Counter>) -> ::mobula::FlatAsk<CounterShare>;
            ),
            quote!({ ::mobula::ActorRef::ask(self, CounterShare { with }).flatten() }),
        ];
        assert_parts(expand(quote!(), counter()), &parts);
    }

    #[test]
    fn the_constructor_becomes_a_description() {
        let parts = [
            quote!(
                pub fn actor(start: i64) -> ::mobula::ActorSpec<Self> {
                    <Self as ::mobula::RemoteActor>::spec((start,))
                }
            ),
            quote!(
                type Args = (i64,);
            ),
            quote!(let (start,) = args; Self::new(start)),
            quote!(table.accept::<CounterIncrement>(); #[cfg(feature = "share")] table.accept::<CounterShare>();),
            quote!(::mobula::register_actor!(Counter);),
        ];
        assert_parts(expand(quote!(), counter()), &parts);
    }

    #[test]
    fn cfg_covers_all_that_belongs_to_a_method() {
        let cfgs = expand(quote!(), counter()).to_string().matches("# [cfg (feature = \"share\")]").count();
        // The method, its message and that one's three impls, its line in the table, declared and implemented on the ref.
        assert_eq!(cfgs, 8);
    }

    #[test]
    fn options() {
        let tokens = expand(quote!(manual_actor, name = "shop::Hits"), counter());
        assert!(!tokens.to_string().contains("actix :: Actor"));
        let parts = [quote!(NAME: &'static str = "shop::Hits";), quote!(NAME: &'static str = "shop::HitsIncrement";)];
        assert_parts(tokens, &parts);
    }
}
