"""Sharded Zarr v3 stores: one immutable group per recording, an index, a direct reader (docs/store-format.md).

A *store* is the folder of one identity, ``<home>/stores/<dataset>@<version>/<stage>/<identity>``; everything here takes
it as ``str | Path``. A *group* in it is ``<recording>.zarr``; ``recording`` is ``RecordingId.name``.

Write (one process per recording, bounded memory; nothing is visible before ``publish``)::

    from neuromill.store.layout import StoreId, signal_chunk_samples
    from neuromill.store.attributes import SignalAttributes, TokenAttributes
    from neuromill.store.writer import SignalWriter, TokenWriter, FeatureWriter

    store = StoreId("ds004078@1.2.1", "prepare", identity).path(home)
    with SignalWriter(store, recording.id.name, n_channels=306, sfreq=50.0) as writer:
        writer.write(block)                                    # float32 [time, channel], SI units, any block length
        writer.publish(attributes, channels, events=events)    # -> PublishedGroup(recording, created, n_bytes, digest)

    with TokenWriter(store, name, n_channels=306, n_quantizers=6, codebook_size=256) as writer:
        writer.write_segment(codes, scale, n_valid_samples)    # [frame, quantizer, channel] ints, float32 [channel]
        writer.publish(attributes, channels, usage=usage)      # usage: int64 [quantizer, code] or None

``publish`` of the same bytes again is a no-op (``created`` is False); other bytes under the same name are refused
unless ``replace=True``. Channels with NaN or without variance get the reason ``non_finite`` / ``flat`` and NaN scale.

Index (one coordinator, after the groups)::

    from neuromill.store.index import rebuild_index, read_index
    rebuild_index(store, extra={"sub-01_meg": {"split": "train"}})      # extra columns are optional strings

Read::

    from neuromill.store.reader import StoreReader
    with StoreReader.open(store) as reader:                    # needs the index; StoreReader.of_groups(store) does not
        for recording in reader.recordings:                    # IndexedRecording, sorted by name
            recording.name, recording.attributes, recording.entities["subject"], recording.extra["split"]
            recording.n_rows, recording.n_channels             # rows of signal / codes / features
            recording.arrays["codes"].shape, .dtype, .dims
        reader.read(name, "codes", start, stop, out=buffer)    # preadv into ``buffer`` [frame, quantizer, channel]
        reader.read(name, "channel_position")                  # float32 [channel, 3], metres, NaN unknown
        reader.read_physical(name, start, stop)                # float32 [time, channel], SI units, NaN: dead channel

Arrays of a signal group: ``signal (time, channel)``, ``channel_scale``, ``channel_offset (channel)``,
``channel_position``, ``channel_orientation (channel, xyz)``, ``event_onset``, ``event_duration (event)``.
Arrays of a token group: ``codes (frame, quantizer, channel)``, ``scale (segment, channel)``, ``segment_start_frame``,
``segment_n_frames``, ``segment_n_valid_samples (segment)``, positions as above; ``codebook_usage (quantizer, code)``
where it is small beside the codes; ``store.usage.codebook_usage(reader, name)`` counts them elsewhere.

Spikes: ``store.spike_writer`` (``SpikeWriter``, ``SpikeTokenWriter``, ``Behaviour``), ``store.spike_tokens_reading``
(``read_chunks``), ``store.looking.open_spikes``; ``n_channels`` counts units there.

Readers are safe in threads, after fork and after spawn (they pickle as their store and index).
Look: ``store.looking.open_signals(group) / open_tokens(group)`` give xarray; ``store.verify`` checks every byte.
"""
