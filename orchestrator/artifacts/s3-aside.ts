/** Moving what is damaged out of its name in a bucket: a copy below `damaged/`, made by the server, then the removal. */
import type { S3Connection } from './s3-connection.js';
import { orNull } from './s3-errors.js';

/** The server copies no more than 5 GiB in one request. */
const COPY_BYTES_MAX = 5 * 2 ** 30;
const COPY_PART_BYTES = 2 ** 30;

export interface CopyLimits {
  copyBytesMax?: number;
  copyPartBytes?: number;
}

/** Answers the new address; null when another process was faster. */
export async function moveAside(
  connection: S3Connection,
  name: string,
  { copyBytesMax = COPY_BYTES_MAX, copyPartBytes = COPY_PART_BYTES }: CopyLimits = {},
): Promise<string | null> {
  const target = `damaged/${name.slice(name.lastIndexOf('/') + 1)}.${String(Date.now())}`;
  const found = await connection.call(name, (s3, abortSignal) =>
    orNull(s3.headObject(connection.at(name), { abortSignal })),
  );
  if (found === null) return null;
  const size = found.ContentLength ?? 0;
  const { Bucket, Key } = connection.at(name);
  const source = { CopySource: `${Bucket}/${Key.split('/').map(encodeURIComponent).join('/')}` };
  if (size > copyBytesMax) {
    await copyInParts(connection, { target, source, size, partBytes: copyPartBytes });
  } else {
    const copied = await connection.call(name, (s3, abortSignal) =>
      orNull(s3.copyObject({ ...connection.at(target), ...source }, { abortSignal })),
    );
    if (copied === null) return null;
  }
  await connection.call(name, (s3, abortSignal) => s3.deleteObject({ Bucket, Key }, { abortSignal }));
  return connection.addressOf(target);
}

interface PartsCopy {
  target: string;
  source: { CopySource: string };
  size: number;
  partBytes: number;
}

async function copyInParts(connection: S3Connection, { target, source, size, partBytes }: PartsCopy): Promise<void> {
  const place = connection.at(target);
  const { UploadId } = await connection.call(target, (s3, abortSignal) =>
    s3.createMultipartUpload(place, { abortSignal }),
  );
  const Parts: { PartNumber: number; ETag: string | undefined }[] = [];
  for (let offset = 0; offset < size; offset += partBytes) {
    const CopySourceRange = `bytes=${String(offset)}-${String(Math.min(size, offset + partBytes) - 1)}`;
    const part = { ...place, ...source, UploadId, CopySourceRange, PartNumber: Parts.length + 1 };
    const { CopyPartResult } = await connection.call(target, (s3, abortSignal) =>
      s3.uploadPartCopy(part, { abortSignal }),
    );
    Parts.push({ PartNumber: part.PartNumber, ETag: CopyPartResult?.ETag });
  }
  await connection.call(target, (s3, abortSignal) =>
    s3.completeMultipartUpload({ ...place, UploadId, MultipartUpload: { Parts } }, { abortSignal }),
  );
}
