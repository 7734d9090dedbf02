-- Where the sources of a topic wrote something else together than was counted: which of them differs nobody knows.
-- Found by the index of the minutes that differ.
CREATE VIEW differing_minutes AS
SELECT differing.topic, differing.minute, each.code AS activity_type_code, sum(each.expected)::bigint AS expected,
    sum(each.counted)::bigint AS counted
FROM (
    SELECT DISTINCT s.topic, m.minute FROM source_minutes m JOIN sources s USING (source) WHERE m.counted IS NOT NULL
) AS differing JOIN sources s USING (topic) JOIN source_minutes m USING (source, minute) CROSS JOIN LATERAL (
    SELECT code, coalesce((m.quantities ->> code)::bigint, 0) AS expected,
        coalesce((coalesce(m.counted, m.quantities) ->> code)::bigint, 0) AS counted
    FROM jsonb_object_keys(m.quantities || coalesce(m.counted, '{}')) AS code
) AS each
GROUP BY differing.topic, differing.minute, each.code HAVING sum(each.expected) <> sum(each.counted);
