"""The Kaltura client: reads pages of upload tokens, and nothing else.

``open_service`` gives a thread-safe ``UploadTokens`` whose session is verified.  Everything that
leaves this package as an error is an ``EtlError`` whose text contains no secret.

    service         open_service, ServiceSettings, Probe      the entry point
    upload_token    UploadTokens, PageReply                   pages, lookups by id
    login, session  logging in; one session for all threads, renewed in time
    ks              session strings: KS v2 made here, v1 read
    retry           the one policy: attempts, waits, Retry-After, budget, interruption
    in_flight       one limit of requests for several runs in one process
    request_rate    at most so many requests per second
    replies         the table of errors; what counts as a reply
    shown           which words of the service may be shown
    calls, client   calls under the policy; one POST
    transport       HTTP: requests, kept connections, proxies, whom TLS trusts
    stream          TCP and TLS: the deadline of a request, interruption
"""
