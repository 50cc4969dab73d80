/**
 * What an S3 server, the network before it or the SDK's look for credentials can fail with, each in its own words.
 *
 * 1. Tried again is only what may pass by itself: throttling, 5xx, time-outs, lost connections, bytes garbled on the way.
 * 2. A full bucket or quota has the code that a full disk has.
 * 3. Nothing of a request or its credentials gets into an error: the cause keeps the name and the message only.
 */
import { StoreUnavailableError } from './errors.js';

export interface S3Fault {
  code: string;
  remedy: string;
  retryable: boolean;
}

interface SdkError {
  name?: string;
  message?: string;
  /** Of the network. */
  code?: string;
  $metadata?: { httpStatusCode?: number };
  /** Of an answer that is no S3 answer. */
  $responseBodyText?: string;
}

const CREDENTIALS = 'check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN or the profile';
const REGION = 'the bucket or the server is of another region; give the right one as ?region=… or AWS_REGION';
const FULL = 'the bucket is full; free space or give it more, then resume the run';
const QUOTA = 'the quota of the bucket is used up; free space or raise it, then resume the run';

/** Server's code to ours (null: the same) and what to do. None of these passes by itself. */
const FINAL: Record<string, [code: string | null, remedy: string]> = {
  NoSuchBucket: [null, 'the bucket does not exist; make it, or correct the address'],
  InvalidBucketName: [null, 'the server does not take this bucket name; correct the address'],
  AccessDenied: [null, 'access is denied; allow these credentials to list, read, write and delete below the prefix'],
  AllAccessDisabled: [null, 'access to the bucket is switched off; ask its owner'],
  InvalidAccessKeyId: [null, `the server does not know the access key; ${CREDENTIALS}`],
  XAdminUserNotFound: ['InvalidAccessKeyId', `the server does not know the access key; ${CREDENTIALS}`],
  SignatureDoesNotMatch: [null, `the secret key is wrong; ${CREDENTIALS}`],
  ExpiredToken: [null, 'the session token has expired; get a new one'],
  InvalidToken: [null, `the session token is wrong; ${CREDENTIALS}`],
  RequestTimeTooSkewed: [null, "this machine's clock and the server's differ too much; set the clock"],
  AuthorizationHeaderMalformed: ['WrongRegion', REGION],
  PermanentRedirect: ['WrongRegion', REGION],
  IllegalLocationConstraintException: ['WrongRegion', REGION],
  CredentialsProviderError: ['NoCredentials', `no credentials were found; ${CREDENTIALS}, or run with a role`],
  XMinioStorageFull: ['ENOSPC', FULL],
  InsufficientStorage: ['ENOSPC', FULL],
  NoSpaceLeftOnDevice: ['ENOSPC', FULL],
  QuotaExceeded: ['EDQUOT', QUOTA],
  XMinioAdminBucketQuotaExceeded: ['EDQUOT', QUOTA],
  MethodNotAllowed: [null, 'the server does not allow this; see whether it is read-only'],
  NotImplemented: [null, 'the server lacks a part of S3 that the store needs; use another server'],
};

const PASSING = new Set([
  'SlowDown',
  'ThrottlingException',
  'Throttling',
  'TooManyRequests',
  'RequestTimeout',
  'RequestTimeoutException',
  'InternalError',
  'ServiceUnavailable',
  'OperationAborted',
  'ConditionalRequestConflict',
  // Garbled on the way: the checksum that went with the bytes says so.
  'BadDigest',
  'IncompleteBody',
  'XAmzContentChecksumMismatch',
  'XAmzContentSHA256Mismatch',
]);

const NETWORK: Record<string, string> = {
  ECONNREFUSED: 'nothing answers at the endpoint; start the server, or correct the endpoint',
  ENOTFOUND: 'the name of the endpoint is not known; correct the endpoint or the region',
  EAI_AGAIN: 'the name of the endpoint could not be looked up; check the network',
  ECONNRESET: 'the connection broke; check the server and the network',
  ECONNABORTED: 'the connection broke; check the server and the network',
  EPIPE: 'the connection broke; check the server and the network',
  ETIMEDOUT: 'no answer in time; check the server and the network',
  EHOSTUNREACH: 'no way to the endpoint; check the network',
  ENETUNREACH: 'no way to the endpoint; check the network',
  ERR_STREAM_PREMATURE_CLOSE: 'the connection broke; check the server and the network',
};

/** Null for what neither the server, the network nor the look for credentials said: the caller's own errors. */
export function faultOf(error: unknown): S3Fault | null {
  const { name = '', message = '', code, $metadata, $responseBodyText } = (error ?? {}) as SdkError;
  const status = $metadata?.httpStatusCode;
  const final = FINAL[name];
  if (final !== undefined) return { code: final[0] ?? name, remedy: final[1], retryable: false };
  if (message === 'Region is missing') {
    return { code: 'NoRegion', remedy: 'no region is given; add ?region=… or set AWS_REGION', retryable: false };
  }
  if (code !== undefined && code in NETWORK) return { code, remedy: NETWORK[code] ?? '', retryable: true };
  if (name === 'AbortError' || name === 'TimeoutError') {
    return { code: 'ETIMEDOUT', remedy: NETWORK['ETIMEDOUT'] ?? '', retryable: true };
  }
  if (code !== undefined && /CERT|TLS|SSL|VERIFY|SIGNED/.test(code)) {
    const remedy = 'the certificate of the endpoint is not trusted; see NODE_EXTRA_CA_CERTS';
    return { code, remedy, retryable: false };
  }
  if (status === 507) return { code: 'ENOSPC', remedy: FULL, retryable: false };
  if (PASSING.has(name) || status === 429 || (status !== undefined && status >= 500)) {
    const remedy = `the server answers ${String(status ?? name)} again and again; see its log, then resume the run`;
    return { code: name, remedy, retryable: true };
  }
  if ($responseBodyText !== undefined) {
    return { code: 'NotS3', remedy: 'the endpoint does not answer like an S3 server; correct it', retryable: false };
  }
  if (status === 301 || status === 307) return { code: 'WrongRegion', remedy: REGION, retryable: false };
  if (status === 401 || status === 403) {
    return { code: 'AccessDenied', remedy: FINAL['AccessDenied']?.[1] ?? '', retryable: false };
  }
  if (status !== undefined && status >= 400) {
    return { code: name, remedy: `the server refuses (${String(status)}): ${message}`, retryable: false };
  }
  return null;
}

export function asUnavailable(
  fault: S3Fault,
  { path, cause }: { path: string; cause: unknown },
): StoreUnavailableError {
  const { name = 'Error', message = '' } = (cause ?? {}) as SdkError;
  const { code, remedy } = fault;
  return new StoreUnavailableError({ path, code, remedy, cause: new Error(`${name}: ${message}`) });
}

/** The answer, or null when the key is not there. */
export async function orNull<T>(answer: Promise<T>): Promise<T | null> {
  return answer.catch((error: unknown) => {
    if (['NoSuchKey', 'NotFound'].includes((error as SdkError).name ?? '')) return null;
    throw error;
  });
}

/** Whether the server took a write with `If-None-Match: *`. */
export async function wasCreated(answer: Promise<unknown>): Promise<boolean> {
  return answer.then(
    () => true,
    (error: unknown) => {
      if ((error as SdkError).name === 'PreconditionFailed') return false;
      throw error;
    },
  );
}
