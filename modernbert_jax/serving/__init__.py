"""The HTTP server: an ASGI application around a model, with dynamic batching by packing.

settings       limits of the server
faults         refusals, with their status and their bodies in two dialects
fields         a request's JSON body, field by field
shapes         the few shapes of batches that are compiled
programs       the model's programs, compiled ahead of time for these shapes
batcher        waiting documents → packed batches → results
service        what the model can do: vectors, sparse vectors, scores, masks
labelling      the task of a model that labels tokens: entities, words, answers
masks          candidates for masks
openai, tei    the routes of the two dialects
hugging_face   the routes by the tasks of Hugging Face's client
operations     health, readiness, metrics and the page
metrics        counters in Prometheus' text format
guard          API key, admission, log and errors around every request
app            the application
server         a socket, signals and a graceful end

It needs the extra `serve`: starlette, uvicorn and orjson.
"""
